-- Moves an ended batch into its next round; what the ended one showed is kept as former:<field> until the round starts.
-- KEYS  1 the batch's hash, then the ended round's lists of lines a shard
-- ARGV  1 how many statuses it may come from, these statuses, then the round that ended, the new deadline,
--       the selection's path, the budget ('' for none), how many fields are kept, these fields, then each provider of
--       the ended round
-- Gives 1 if the batch is now being validated again by this retry, 0 if its status or round does not allow it.
-- Atomic, so that of two retries, or a retry and a removal, one wins. The path is fresh, so that a repeat is known.
local batch, count = redis.call('HMGET', KEYS[1], 'status', 'round', 'selection', 'removing'), tonumber(ARGV[1])
local round, deadline, selection = ARGV[count + 2], ARGV[count + 3], ARGV[count + 4]
if batch[3] == selection then return 1 end
local allowed = false
for i = 2, count + 1 do allowed = allowed or ARGV[i] == batch[1] end
if not allowed or batch[4] or (batch[2] or '0') ~= round then return 0 end
local budget, kept = ARGV[count + 5], tonumber(ARGV[count + 6])
for i = count + 7, count + 6 + kept do
  local value = redis.call('HGET', KEYS[1], ARGV[i])
  redis.call('HDEL', KEYS[1], ARGV[i], 'former:' .. ARGV[i])
  if value then redis.call('HSET', KEYS[1], 'former:' .. ARGV[i], value) end
end
for i = count + 7 + kept, #ARGV do
  for _, field in ipairs({'first:', 'shards:', 'next:', 'open_lines:'}) do redis.call('HDEL', KEYS[1], field .. ARGV[i]) end
end
for k = 2, #KEYS do redis.call('DEL', KEYS[k]) end
redis.call('HSET', KEYS[1], 'status', 'validating', 'round', tonumber(round) + 1, 'expires_at', deadline,
  'selection', selection)
if budget ~= '' then redis.call('HSET', KEYS[1], 'max_cost', budget) end
return 1
