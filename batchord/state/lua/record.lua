-- Records the outcomes of some lines of one shard: the first outcome of a line stays, a later one changes nothing.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 the provider's sorted set of open shards
-- ARGV  1 the shard's number, 2 now, then for each line: index, record (its first letter is the outcome), retries,
--       input, cached, output, reasoning and total tokens
-- Gives how many were recorded now.
-- Atomic, so that results, counters and usage cannot drift apart, and a line is never counted twice.
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
local counter = {s = 'completed', f = 'failed', c = 'cancelled', e = 'expired'}
local token_fields = {'input_tokens', 'cached_tokens', 'output_tokens', 'reasoning_tokens', 'total_tokens'}
local sums, recorded = {}, 0
local function add(field, n) if n ~= 0 then sums[field] = (sums[field] or 0) + n end end
for i = 3, #ARGV, 8 do
  redis.call('HDEL', KEYS[4], ARGV[i])
  if redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1]) == 1 then
    recorded = recorded + 1
    add(counter[string.sub(ARGV[i + 1], 1, 1)], 1)
    add('retries', tonumber(ARGV[i + 2]))
    for t = 1, 5 do add(token_fields[t], tonumber(ARGV[i + 2 + t])) end
  end
end
for field, n in pairs(sums) do redis.call('HINCRBY', KEYS[1], field, n) end
if recorded > 0 then
  redis.call('HINCRBY', KEYS[2], 'recorded', recorded)
  redis.call('ZADD', KEYS[5], 'XX', ARGV[2], ARGV[1])
end
return recorded
