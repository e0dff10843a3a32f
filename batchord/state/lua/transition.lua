-- Moves a batch into another status if its status allows that.
-- KEYS  1 the batch's hash
-- ARGV  1 the round that is meant, or '' for any, 2 how many statuses it may come from, these statuses,
--       then the target, its timestamp field, now, then further field, value, ... to set with it
-- Gives 1 if it was moved, 0 if its status, its round (or its absence) does not allow it.
-- Atomic, so that of two movers one wins, and nothing is written after a terminal status or into a later round.
local batch, count = redis.call('HMGET', KEYS[1], 'status', 'round'), tonumber(ARGV[2])
local allowed = false
for i = 3, count + 2 do allowed = allowed or ARGV[i] == batch[1] end
if not allowed or (ARGV[1] ~= '' and ARGV[1] ~= (batch[2] or '0')) then return 0 end
redis.call('HSET', KEYS[1], 'status', ARGV[count + 3], ARGV[count + 4], ARGV[count + 5])
for i = count + 6, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
