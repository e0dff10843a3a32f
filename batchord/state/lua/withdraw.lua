-- Takes a retry back that cannot begin: the batch shows what it showed before.
-- KEYS  1 the batch's hash
-- ARGV  1 the round that cannot begin, then the fields that the retry kept
-- Gives 1 if it was taken back, 0 if this round is not being validated any more, or is the first one.
-- Atomic, so that a round that another plan has started stays.
local batch = redis.call('HMGET', KEYS[1], 'status', 'round', 'former:status')
if batch[1] ~= 'validating' or batch[2] ~= ARGV[1] or not batch[3] then return 0 end
for i = 2, #ARGV do
  local value = redis.call('HGET', KEYS[1], 'former:' .. ARGV[i])
  redis.call('HDEL', KEYS[1], ARGV[i], 'former:' .. ARGV[i])
  if value then redis.call('HSET', KEYS[1], ARGV[i], value) end
end
return 1
