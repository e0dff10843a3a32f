-- Prolongs this worker's claims in one open shard.
-- KEYS  1 the shard's hash, 2 its owners
-- ARGV  1 worker
-- Gives 1, or 0 where the shard is sealed.
-- Atomic, so that the key is not made anew after the seal removed it.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('HSET', KEYS[2], ARGV[1], now)
return 1
