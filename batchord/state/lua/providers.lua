-- Reads how providers are: their conditions, and what the workers report that are not silent.
-- KEYS  the conditions, then as many times the reports
-- ARGV  1 after how many seconds a worker is silent
-- Gives for each provider the condition as JSON and its reports.
-- Atomic, so that what is dropped as too old is what was read.
local answer, count = {}, #KEYS / 2
for i = 1, count do
  local reports, entries = {}, redis.call('HGETALL', KEYS[count + i])
  for j = 1, #entries, 2 do
    if now - tonumber(string.match(entries[j + 1], '^%S+')) > tonumber(ARGV[1]) then
      redis.call('HDEL', KEYS[count + i], entries[j])
    else
      reports[#reports + 1] = entries[j + 1]
    end
  end
  answer[i] = {told(KEYS[i], load(KEYS[i])), reports}
end
return answer
