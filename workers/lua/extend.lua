-- Acknowledges what is done and renews the sign of life of what is still in flight.
--
-- KEYS     unacked, index
-- ARGV     number of tags to acknowledge, those tags..., tags in flight...
-- Returns  how many tags it acknowledged
-- Atomic   because a sweep between the two halves could give away a message that is done.
--
-- A full server (noeviction) refuses ZADD as the first write of a script, but not after a ZREM.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local acked = tonumber(ARGV[1])

redis.call('ZREM', KEYS[2], '')
for i = 2, 1 + acked do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end
for i = 2 + acked, #ARGV do
  redis.call('ZADD', KEYS[2], 'XX', now, ARGV[i])
end
return acked
