-- Looks for what became of some lines of one shard, for lines that wait to take their answers.
-- KEYS  1 the shard's hash, 2 its outcomes, 3 its claims, 4 its owners
-- ARGV  1 for how many seconds a claim holds, then the lines' indices
-- Gives for each index: 'sealed' (look in storage), 'claimed' (a living worker sends it), 'unclaimed', or its record, of
--       which the first letter is the outcome and the next one none.
-- Atomic, so that a shard sealed meanwhile is never taken for one whose line nobody sends.
local answers, is_open = {}, redis.call('EXISTS', KEYS[1]) == 1
for i = 2, #ARGV do
  local record = is_open and redis.call('HGET', KEYS[2], ARGV[i])
  local owner = is_open and redis.call('HGET', KEYS[3], ARGV[i])
  if not is_open then answers[i - 1] = 'sealed'
  elseif record then answers[i - 1] = record
  elseif owner and is_alive(KEYS[4], owner, tonumber(ARGV[1])) then answers[i - 1] = 'claimed'
  else answers[i - 1] = 'unclaimed' end
end
return answers
