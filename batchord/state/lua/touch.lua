-- Notes that something was done for an open shard, so that the sweep waits before it acts again.
-- KEYS  1 the provider's sorted set of open shards
-- ARGV  1 the shard's number
-- Gives nothing of use.
-- One script, so that the time is that of Redis.
return redis.call('ZADD', KEYS[1], 'XX', now, ARGV[1])
