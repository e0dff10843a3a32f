-- Decides for some lines of one shard whether this worker may send them now, and claims those.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 its owners, 6 its strikes
-- ARGV  1 worker, 2 for how many seconds a claim holds, 3 since when and 4 until when the worker was in touch with
--       Redis, 5 from how many strikes on a line is suspect and 6 poisoned, then the lines' indices
-- Gives for each index: 'send', 'suspect' (send it alone), 'poisoned' (fail it), 'recorded' (it has an outcome, or the
--       shard is sealed), 'claimed' (another living worker sends it), 'unsure' (another worker claimed it and is silent,
--       but this one cannot call it dead yet: ask again), 'cancelled', 'expired' or 'over_budget' (record that instead).
--       A strike is a worker's death while it sent the line: a claim is taken over that it has not given up.
-- Atomic, so that a message delivered twice is sent once: the second reader finds the claim of the first.
local worker, claim_s, answers, claimed = ARGV[1], tonumber(ARGV[2]), {}, {}
local batch = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'max_cost', 'cost')
local is_open, judges = redis.call('EXISTS', KEYS[2]) == 1, may_judge(ARGV[3], ARGV[4], claim_s)

local function refusal(owner)
  if not owner or owner == worker then return nil end
  if is_alive(KEYS[5], owner, claim_s) then return 'claimed' end
  if not judges then return 'unsure' end
end

local function claim(index, owner)
  if owner and owner ~= worker then redis.call('HINCRBY', KEYS[6], index, 1) end
  if owner ~= worker then redis.call('HSET', KEYS[4], index, worker) end
  if #claimed == 0 then redis.call('HSET', KEYS[5], worker, now) end
  claimed[#claimed + 1] = index
  local strikes = tonumber(redis.call('HGET', KEYS[6], index) or '0')
  if strikes >= tonumber(ARGV[6]) then return 'poisoned' end
  return strikes >= tonumber(ARGV[5]) and 'suspect' or 'send'
end

for i = 7, #ARGV do
  local owner = redis.call('HGET', KEYS[4], ARGV[i])
  local answer = refusal(owner)
  if not is_open or redis.call('HEXISTS', KEYS[3], ARGV[i]) == 1 then answer = 'recorded'
  elseif answer then -- it stays
  elseif batch[1] == 'cancelling' then answer = 'cancelled'
  elseif batch[1] ~= 'in_progress' or now >= tonumber(batch[2]) then answer = 'expired'
  elseif batch[3] and tonumber(batch[4] or '0') >= tonumber(batch[3]) then answer = 'over_budget'
  else answer = claim(ARGV[i], owner) end
  answers[#answers + 1] = answer
end
return answers
