-- Lists the living workers.
-- KEYS  1 the sorted set of workers by the time until which they count as alive
-- Gives their names.
-- One script, so that the time is that of Redis.
return redis.call('ZRANGEBYSCORE', KEYS[1], now, '+inf')
