-- Opens the next planned shard of one batch for one provider, if the provider's window has room for it.
-- KEYS  1 the batch's hash, 2 its list of lines a shard, 3 its sorted set of open shards,
--       4 the provider's list of batches that wait, 5 its open lines by tenant
-- ARGV  1 provider, 2 lines that may be open in all batches, 3 what the key of a shard's hash begins with,
--       4 the batch's member of the list of those that wait
-- Gives {number, lines} of the shard opened, or {} where there is none to open now. A tenant that has none open may
--       always open one. A batch with nothing (more) to open leaves the list.
-- Atomic, so that two feeds never open the same shard, and the window is never overrun.
local batch = redis.call('HMGET', KEYS[1], 'status', 'expires_at', 'tenant',
  'next:' .. ARGV[1], 'open_lines:' .. ARGV[1], 'first:' .. ARGV[1])
local number, at, lines = tonumber(batch[4]), 0, 0
if batch[1] == 'in_progress' and now < tonumber(batch[2]) and number then
  at = number - tonumber(batch[6] or '0')
  lines = tonumber(redis.call('LINDEX', KEYS[2], at) or '0')
end
if lines == 0 then
  redis.call('ZREM', KEYS[4], ARGV[4])
  return {}
end
local tenant, open_lines = batch[3] or 'default', 0
for _, count in ipairs(redis.call('HVALS', KEYS[5])) do open_lines = open_lines + tonumber(count) end
if redis.call('HEXISTS', KEYS[5], tenant) == 1 and open_lines + lines > tonumber(ARGV[2]) then return {} end
redis.call('HSET', ARGV[3] .. number, 'lines', lines, 'recorded', 0)
redis.call('ZADD', KEYS[3], now, number)
redis.call('HSET', KEYS[1], 'next:' .. ARGV[1], number + 1, 'open_lines:' .. ARGV[1], tonumber(batch[5]) + lines)
redis.call('HINCRBY', KEYS[5], tenant, lines)
if not redis.call('LINDEX', KEYS[2], at + 1) then redis.call('ZREM', KEYS[4], ARGV[4]) end
return {number, lines}
