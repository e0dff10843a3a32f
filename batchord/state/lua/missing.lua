-- Finds the lines of an open shard that have no outcome and that no living worker sends.
-- KEYS  1 the batch's hash, 2 the shard's hash, 3 its outcomes, 4 its claims, 5 its owners
-- ARGV  1 for how many seconds a claim holds, 2 since when and 3 until when the worker was in touch with Redis
-- Gives 1 if lines of the batch may still be sent, else 0, then the indices, lowest first; none if the shard is sealed.
-- Atomic, so that a line is not called missing between its claim's end and its record. At most 1,000 rounds.
local batch, claim_s = redis.call('HMGET', KEYS[1], 'status', 'expires_at'), tonumber(ARGV[1])
local runs, judges = batch[1] == 'in_progress' and now < tonumber(batch[2]), may_judge(ARGV[2], ARGV[3], claim_s)
local answer = {runs and 1 or 0}
for index = 0, tonumber(redis.call('HGET', KEYS[2], 'lines') or '0') - 1 do
  if redis.call('HEXISTS', KEYS[3], index) == 0 then
    local owner = redis.call('HGET', KEYS[4], index)
    if not owner or (judges and not is_alive(KEYS[5], owner, claim_s)) then answer[#answer + 1] = index end
  end
end
return answer
