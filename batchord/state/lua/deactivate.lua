-- Takes a batch off a list, unless it was put there again since it was looked at.
-- KEYS  1 the list
-- ARGV  1 the batch, 2 its score then
-- Gives 1 if it was taken off, else 0.
-- Atomic, so that a batch that runs again stays on the list.
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not score or tonumber(score) ~= tonumber(ARGV[2]) then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
