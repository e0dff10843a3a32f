-- Ends planning: the totals and the shards appear, and the batch is in progress.
-- KEYS  1 the batch's hash, then for each provider its list of lines a shard
-- ARGV  1 now, 2 how many fixed fields' words follow, these (field, value, ...),
--       then for each provider: its name, its number of shards, the lines of each shard
-- Gives 1 if the batch is now in progress, 0 if it is not being validated any more (planned before, or cancelled).
-- Atomic, so that a plan that runs twice, or is overtaken by a cancel, starts nothing twice.
if redis.call('HGET', KEYS[1], 'status') ~= 'validating' then return 0 end
local at = 3
for _ = 1, tonumber(ARGV[2]) / 2 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1])
  at = at + 2
end
for k = 2, #KEYS do
  local provider, shards = ARGV[at], tonumber(ARGV[at + 1])
  redis.call('DEL', KEYS[k])
  redis.call('HSET', KEYS[1], 'shards:' .. provider, shards, 'next:' .. provider, 0, 'open_lines:' .. provider, 0)
  for i = at + 2, at + 1 + shards do redis.call('RPUSH', KEYS[k], ARGV[i]) end
  at = at + 2 + shards
end
redis.call('HSET', KEYS[1], 'status', 'in_progress', 'in_progress_at', ARGV[1])
return 1
