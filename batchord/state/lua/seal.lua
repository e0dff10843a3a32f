-- Ends a shard whose parts are in storage: its outcomes and its chord leave Redis, the window has room again.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 its owners, 6 its strikes,
--       7 the provider's sorted set of open shards, 8 and 9 its chord,
--       10 the provider's open lines by tenant
-- ARGV  1 provider, 2 the shard's number, 3 how many of its lines succeeded
-- Gives 1 if it was sealed now, 0 if it was sealed before or still lacks an outcome.
-- Atomic, so that a seal that runs twice frees the window once, and counts once what can be read from now on.
local shard = redis.call('HMGET', KEYS[2], 'lines', 'recorded')
if not shard[1] or shard[1] ~= shard[2] then return 0 end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[8], KEYS[9])
redis.call('ZREM', KEYS[7], ARGV[2])
redis.call('HINCRBY', KEYS[1], 'open_lines:' .. ARGV[1], -tonumber(shard[1]))
local tenant = redis.call('HGET', KEYS[1], 'tenant') or 'default'
if redis.call('HINCRBY', KEYS[10], tenant, -tonumber(shard[1])) <= 0 then redis.call('HDEL', KEYS[10], tenant) end
redis.call('HINCRBY', KEYS[1], 'sealed_succeeded', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'sealed_others', tonumber(shard[1]) - tonumber(ARGV[3]))
return 1
