-- Notes a part whose bytes are in storage.
-- KEYS  1 the upload's hash
-- ARGV  1 now, 2 the part's field, 3 its size in bytes
-- Gives 1 if the upload has the part now, 0 if it takes none any more.
-- Atomic, so that an upload that has ended never gains a part.
local upload = redis.call('HMGET', KEYS[1], 'status', 'expires_at')
if upload[1] ~= 'pending' or tonumber(ARGV[1]) >= tonumber(upload[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
return 1
