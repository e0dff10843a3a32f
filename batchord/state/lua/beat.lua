-- Notes that a worker lives, and forgets those that were not alive any more an hour ago.
-- KEYS  1 the sorted set of workers by the time until which they count as alive
-- ARGV  1 worker, 2 for how many seconds it counts as alive
-- Gives the time of Redis, in seconds as text.
-- One script, so that the clock that tells who lives is the one whose time the worker learns.
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 3600)
return string.format('%.6f', now)
