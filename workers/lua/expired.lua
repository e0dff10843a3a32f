-- Names the messages without a sign of life for a whole visibility timeout.
--
-- KEYS     index, since (string: when sweeping began, after the last pause)
-- ARGV     visibility timeout in seconds, most tags to return
-- Returns  tags, the longest silent first; none in the half timeout after a pause of a half timeout or more:
--          the server or the whole fleet was away, and the living workers need time to come back and say so
-- Atomic   because two workers that sweep at once must agree on when sweeping began.
--
-- A full server (noeviction) refuses SET as the first write of a script, but not after a ZREM.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local visibility = tonumber(ARGV[1])

redis.call('ZREM', KEYS[1], '')
local since = redis.call('GET', KEYS[2]) or tostring(now)
redis.call('SET', KEYS[2], since, 'PX', math.ceil(visibility * 500))
if now - tonumber(since) < visibility / 2 then
  return {}
end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - visibility, 'LIMIT', 0, tonumber(ARGV[2]))
