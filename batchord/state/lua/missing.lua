-- Finds the lines of an open shard that have no outcome and that no living worker sends.
-- KEYS  1 the shard's hash, 2 its outcomes, 3 its claims, 4 its owners
-- ARGV  1 now
-- Gives their indices, lowest first; none where the shard is sealed.
-- Atomic, so that a line is not called missing between its claim's end and its record. At most 1,000 rounds.
local missing = {}
for index = 0, tonumber(redis.call('HGET', KEYS[1], 'lines') or '0') - 1 do
  if redis.call('HEXISTS', KEYS[2], index) == 0 then
    local owner = redis.call('HGET', KEYS[3], index)
    if not owner or tonumber(redis.call('HGET', KEYS[4], owner) or '0') <= tonumber(ARGV[1]) then
      missing[#missing + 1] = index
    end
  end
end
return missing
