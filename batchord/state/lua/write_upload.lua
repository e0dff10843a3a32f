-- Writes a new upload.
-- KEYS  1 the upload's hash
-- ARGV  1 the time when Redis forgets it, then field, value, field, value, ...
-- Gives 1.
-- Atomic, so that no upload is ever without its time to live.
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return redis.call('EXPIREAT', KEYS[1], ARGV[1])
