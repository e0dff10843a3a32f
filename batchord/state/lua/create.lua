-- Writes a new hash, once: a repeat of the same create finds it and changes nothing.
-- KEYS  1 the hash of a batch or a file
-- ARGV  field, value, field, value, ...
-- Gives 1 if it was written, 0 if it was there.
-- Atomic, so that no reader sees one without all its fields.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
