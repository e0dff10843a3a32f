-- Completes or cancels a pending upload.
-- KEYS  1 the upload's hash
-- ARGV  1 the status that it ends with, then field, value, ... to set with it
-- Gives 1 if it was ended now, 0 if it had ended before, or is not there.
-- Atomic, so that of two that end it one wins.
if redis.call('HGET', KEYS[1], 'status') ~= 'pending' then return 0 end
redis.call('HSET', KEYS[1], 'status', unpack(ARGV))
return 1
