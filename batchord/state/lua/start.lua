-- Ends planning: the totals and the shards appear, and the batch is in progress.
-- KEYS  1 the batch's hash, then for each provider its list of lines a shard
-- ARGV  1 now, 2 the round that was planned, 3 the number of its first shards, 4 how many fixed fields' words follow,
--       these (field, value, ...), then for each provider: its name, its number of shards, the lines of each shard
-- Gives 1 if the batch is now in progress, 0 if this round is not being validated any more (planned before, cancelled).
-- Atomic, so that a plan that runs twice, or is overtaken by a cancel or a later round, starts nothing twice.
local batch = redis.call('HMGET', KEYS[1], 'status', 'round')
if batch[1] ~= 'validating' or (batch[2] or '0') ~= ARGV[2] then return 0 end
local first, at = tonumber(ARGV[3]), 5
for _ = 1, tonumber(ARGV[4]) / 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for k = 2, #KEYS do
  local provider, shards = ARGV[at], tonumber(ARGV[at + 1])
  redis.call('DEL', KEYS[k])
  redis.call('HSET', KEYS[1], 'first:' .. provider, first, 'shards:' .. provider, first + shards,
    'next:' .. provider, first, 'open_lines:' .. provider, 0)
  for i = at + 2, at + 1 + shards do redis.call('RPUSH', KEYS[k], ARGV[i]) end
  at = at + 2 + shards
end
redis.call('HSET', KEYS[1], 'status', 'in_progress', 'in_progress_at', ARGV[1])
return 1
