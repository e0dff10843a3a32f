-- Decides for some lines of one shard whether this worker may send them now, and claims those.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 its owners
-- ARGV  1 worker, 2 now, 3 until when this worker's claims hold, then the lines' indices
-- Gives for each index: 'send', 'recorded' (it has an outcome, or the shard is sealed), 'claimed' (another living
--       worker sends it), 'cancelled' or 'expired' (record that instead).
-- Atomic, so that a message delivered twice is sent once: the second reader finds the claim of the first.
local answers = {}
local batch = redis.call('HMGET', KEYS[1], 'status', 'expires_at')
local now, is_open = tonumber(ARGV[2]), redis.call('EXISTS', KEYS[2]) == 1
for i = 4, #ARGV do
  local index, answer = ARGV[i], 'send'
  local owner = redis.call('HGET', KEYS[4], index)
  if not is_open or redis.call('HEXISTS', KEYS[3], index) == 1 then answer = 'recorded'
  elseif owner and owner ~= ARGV[1] and tonumber(redis.call('HGET', KEYS[5], owner) or '0') > now then answer = 'claimed'
  elseif batch[1] == 'cancelling' then answer = 'cancelled'
  elseif batch[1] ~= 'in_progress' or now >= tonumber(batch[2]) then answer = 'expired'
  else
    redis.call('HSET', KEYS[4], index, ARGV[1])
    redis.call('HSET', KEYS[5], ARGV[1], ARGV[3])
  end
  answers[#answers + 1] = answer
end
return answers
