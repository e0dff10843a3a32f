-- Notes limits that a provider's answers state, and gives all that the fleet knows.
-- KEYS  1 the provider's rates: "learned <unit> <model>" to "<limit a minute> <when it was stated>", beside the buckets
-- ARGV  1 for how many seconds a limit is believed, 2 for how many the rates are kept, 3 how many fields there may be,
--       then for each limit: its field, its value
-- Gives for each limit that is still believed: its field, its value.
-- Atomic, so that the fields stay bounded; those that nobody has written for so long, buckets too, are deleted.
for i = 4, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 or redis.call('HLEN', KEYS[1]) < tonumber(ARGV[3]) then
    redis.call('HSET', KEYS[1], ARGV[i], string.format('%s %.6f', ARGV[i + 1], now))
    redis.call('EXPIRE', KEYS[1], ARGV[2])
  end
end
local answer, fields = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local value, written = string.match(fields[i + 1], '^(%S+) (%S+)$')
  if now - written >= tonumber(ARGV[1]) then
    redis.call('HDEL', KEYS[1], fields[i])
  elseif string.sub(fields[i], 1, 8) == 'learned ' then
    answer[#answer + 1] = fields[i]
    answer[#answer + 1] = value
  end
end
return answer
