-- Deletes the lists that an ended round needs no more.
-- KEYS  1 the batch's hash, then each provider's list of lines a shard
-- ARGV  1 the round that ended, then the statuses of a batch that has ended
-- Gives 1 if they are gone, 0 where the batch runs again.
-- Atomic, so that whoever comes late deletes nothing of a later round.
local batch = redis.call('HMGET', KEYS[1], 'status', 'round')
local ended = false
for i = 2, #ARGV do ended = ended or ARGV[i] == batch[1] end
if not ended or (batch[2] or '0') ~= ARGV[1] then return 0 end
for k = 2, #KEYS do redis.call('DEL', KEYS[k]) end
return 1
