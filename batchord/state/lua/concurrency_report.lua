-- Adds what a worker measured of a provider, and gives it the turn to find the next limit if it is time for that.
-- KEYS  1 the provider's limit: limit, course, at (of the last turn), and what was measured since, by field
-- ARGV  1 how many seconds lie between two turns, 2 the first limit, 3 for how many seconds a sample is remembered,
--       then the worker's sample: 4 answers, 5 work, 6 latency_s, 7 busy_s, 8 room_s, 9 throttled, 10 troubled,
--       11 kept (of which the least counts)
-- Gives the limit; and if it is the worker's turn also its time, the course, and the sums in the order of ARGV.
-- Atomic, so that no sample counts in two turns, and no two workers have the same turn.
local found = redis.call('HMGET', KEYS[1], 'limit', 'course', 'at', 'kept')
local limit, course, at = found[1] or ARGV[2], found[2] or '', tonumber(found[3] or 0)
local has_ended = tonumber(ARGV[4]) + tonumber(ARGV[9]) + tonumber(ARGV[10]) > 0
if not has_ended and tonumber(ARGV[7]) == 0 then
  return {limit}
end
local names, sums = {'answers', 'work', 'latency_s', 'busy_s', 'room_s', 'throttled', 'troubled'}, {}
for i, name in ipairs(names) do
  sums[i] = redis.call('HINCRBYFLOAT', KEYS[1], name, ARGV[i + 3])
end
sums[8] = tostring(math.min(tonumber(found[4] or 1), tonumber(ARGV[11])))
redis.call('HSET', KEYS[1], 'kept', sums[8])
redis.call('EXPIRE', KEYS[1], ARGV[3])
if not has_ended or (at <= now and now < at + tonumber(ARGV[1])) then
  return {limit}
end
local turn = string.format('%.6f', now)
redis.call('HSET', KEYS[1], 'at', turn)
redis.call('HDEL', KEYS[1], 'kept', unpack(names))
return {limit, turn, course, unpack(sums)}
