-- Gives up this worker's claims on some lines, which go back to their queue unsent.
-- KEYS  1 the shard's claims
-- ARGV  1 worker, then the lines' indices
-- Gives how many claims were given up.
-- Atomic, so that another worker's claim is never removed.
local released = 0
for i = 2, #ARGV do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[1] then released = released + redis.call('HDEL', KEYS[1], ARGV[i]) end
end
return released
