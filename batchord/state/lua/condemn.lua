-- Marks an ended batch as being removed: from now on nobody finds it, and no retry may begin.
-- KEYS  1 the batch's hash
-- ARGV  1 its round, then the terminal statuses
-- Gives 1 if it is marked now, 0 if it runs (again) or is gone.
-- Atomic, so that of a removal and a retry one wins.
local batch = redis.call('HMGET', KEYS[1], 'status', 'round')
if (batch[2] or '0') ~= ARGV[1] then return 0 end
for i = 2, #ARGV do
  if ARGV[i] == batch[1] then
    redis.call('HSET', KEYS[1], 'removing', 1)
    return 1
  end
end
return 0
