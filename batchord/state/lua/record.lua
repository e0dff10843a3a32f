-- Records the outcomes of some lines of one shard: the first outcome of a line stays, a later one changes nothing. An
-- answer is late, and only counted, if its line has another outcome, or is being sent by another living worker.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 its owners, 6 the provider's sorted set
--       of open shards, 7 the batch's analytics
-- ARGV  1 worker, 2 for how many seconds a claim holds, 3 the shard's number, 4 provider, 5 at how many fields the
--       analytics take no new model, 6 how many models follow, these (each as provider|model), then for each line:
--       index, record (its first letter is the outcome), retries, input, cached, output, reasoning and total tokens,
--       cost in nano-dollars ('' if unknown), the buckets of its latency ('copy' where the answer is another line's) and
--       of its time to first byte ('' for both where no answer came), which of the models
-- Gives how many were recorded now.
-- Atomic, so that results, counters, usage and analytics cannot drift apart, and a line is never counted twice.
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local is_open, claim_s = redis.call('EXISTS', KEYS[2]) == 1, tonumber(ARGV[2])
local counter = {s = 'completed', f = 'failed', c = 'cancelled', e = 'expired'}
local token_fields = {'input_tokens', 'cached_tokens', 'output_tokens', 'reasoning_tokens', 'total_tokens'}
local sums, tallies, recorded = {}, {}, 0
local function add(to, field, n) if n ~= 0 then to[field] = (to[field] or 0) + n end end

-- Whether another living worker sends the line.
local function is_fenced(index)
  local owner = redis.call('HGET', KEYS[4], index)
  return owner and owner ~= ARGV[1] and is_alive(KEYS[5], owner, claim_s)
end

local function count(i)
  local model, outcome = ARGV[i + 11], counter[string.sub(ARGV[i + 1], 1, 1)]
  local tally = tallies[model] or {}
  tallies[model] = tally
  add(sums, outcome, 1)
  add(tally, outcome, 1)
  add(sums, 'retries', tonumber(ARGV[i + 2]))
  for t = 1, 5 do
    local tokens = tonumber(ARGV[i + 2 + t])
    add(sums, token_fields[t], tokens)
    add(tally, token_fields[t], tokens)
  end
  if ARGV[i + 9] == 'copy' then
    add(tally, 'duplicates', 1)
  elseif ARGV[i + 9] ~= '' then
    add(tally, 'latency:' .. ARGV[i + 9], 1)
    add(tally, 'ttfb:' .. ARGV[i + 10], 1)
    if ARGV[i + 8] == '' then
      add(tally, 'unpriced', 1)
    else
      add(tally, 'cost', tonumber(ARGV[i + 8]))
      add(sums, 'cost', tonumber(ARGV[i + 8]))
    end
  end
end

for i = 7 + tonumber(ARGV[6]), #ARGV, 12 do
  local index, record = ARGV[i], ARGV[i + 1]
  if is_open and not is_fenced(index) and redis.call('HSETNX', KEYS[3], index, record) == 1 then
    redis.call('HDEL', KEYS[4], index)
    recorded = recorded + 1
    count(i)
  -- what was recorded before is the same call again
  elseif string.find(record, '^[sf]') and redis.call('HGET', KEYS[3], index) ~= record then
    add(sums, 'late', 1)
  end
end
-- A sum that grows past what Redis can count, as a provider may report nonsense, stays as it was: with an error here the
-- outcomes would be written, and the shard never be complete.
for field, n in pairs(sums) do redis.pcall('HINCRBY', KEYS[1], field, n) end
for model, tally in pairs(tallies) do
  local name = ARGV[7 + model] .. '|'
  if redis.call('HSETNX', KEYS[7], name .. 'seen', 1) == 1 and redis.call('HLEN', KEYS[7]) > tonumber(ARGV[5]) then
    redis.call('HDEL', KEYS[7], name .. 'seen')
    name = ARGV[4] .. '||'
  end
  for field, n in pairs(tally) do redis.pcall('HINCRBY', KEYS[7], name .. field, n) end
end
if recorded > 0 then
  redis.call('HINCRBY', KEYS[2], 'recorded', recorded)
  redis.call('ZADD', KEYS[6], 'XX', now, ARGV[3])
end
return recorded
