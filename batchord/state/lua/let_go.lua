-- Ends a lease early.
-- KEYS  1 the lease
-- ARGV  1 who held it
-- Gives 1 if it was the holder's, else 0.
-- Atomic, so that nobody ends another's lease.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
