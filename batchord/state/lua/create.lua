-- Writes a new batch, once: a repeat of the same create finds the hash and changes nothing.
-- KEYS  1 the batch's hash
-- ARGV  field, value, field, value, ...
-- Gives 1 if it was written, 0 if it was there.
-- Atomic, so that no reader sees a batch without all its fields.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV))
return 1
