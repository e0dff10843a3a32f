-- Opens the next planned shard of one provider, if the window has room for it.
-- KEYS  1 the batch's hash, 2 the provider's list of lines a shard, 3 its sorted set of open shards
-- ARGV  1 provider, 2 lines that may be open, 3 what the key of a shard's hash begins with
-- Gives {number, lines} of the shard opened, or {} where there is none to open now.
-- Atomic, so that two feeds never open the same shard, and the window is never overrun.
local batch = redis.call('HMGET', KEYS[1], 'status', 'expires_at',
  'next:' .. ARGV[1], 'open_lines:' .. ARGV[1], 'first:' .. ARGV[1])
if batch[1] ~= 'in_progress' or now >= tonumber(batch[2]) or not batch[3] then return {} end
local number, open_lines = tonumber(batch[3]), tonumber(batch[4])
local lines = tonumber(redis.call('LINDEX', KEYS[2], number - tonumber(batch[5] or '0')) or '0')
if lines == 0 then return {} end
if open_lines > 0 and open_lines + lines > tonumber(ARGV[2]) then return {} end
redis.call('HSET', ARGV[3] .. number, 'lines', lines, 'recorded', 0)
redis.call('ZADD', KEYS[3], now, number)
redis.call('HSET', KEYS[1], 'next:' .. ARGV[1], number + 1, 'open_lines:' .. ARGV[1], open_lines + lines)
return {number, lines}
