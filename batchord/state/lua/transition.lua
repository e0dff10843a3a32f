-- Moves a batch into another status if its status allows that.
-- KEYS  1 the batch's hash
-- ARGV  1 how many statuses it may come from, these statuses, then the target, its timestamp field, now,
--       then further field, value, ... to set with it
-- Gives 1 if it was moved, 0 if its status (or its absence) does not allow it.
-- Atomic, so that of two movers one wins, and nothing is written after a terminal status.
local from, count = redis.call('HGET', KEYS[1], 'status'), tonumber(ARGV[1])
local allowed = false
for i = 2, count + 1 do allowed = allowed or ARGV[i] == from end
if not allowed then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[count + 2], ARGV[count + 3], ARGV[count + 4])
for i = count + 5, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
