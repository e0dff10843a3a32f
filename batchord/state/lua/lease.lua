-- Takes or prolongs a lease.
-- KEYS  1 the lease
-- ARGV  1 who wants it, 2 for how many milliseconds
-- Gives 1 if the asker holds it now, 0 if another does.
-- Atomic, so that two never hold it at once while its time runs.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
