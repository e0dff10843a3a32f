-- Acknowledges what is done, then takes messages from the queues and registers them as unacknowledged.
--
-- KEYS     unacked (hash: tag -> [message, exchange, routing key]), index (sorted set: tag -> last sign of life), queues...
-- ARGV     most messages in all, most messages of each queue..., tags to acknowledge...
-- Returns  a flat list: number of the queue (from 1), message, number of the queue, message, ...
-- Atomic   because a message must never be in neither place: a worker or connection that dies here loses nothing.
--
-- EXISTS makes a connection with CLIENT TRACKING hear of the next message of a queue that ran dry.
-- A message without a delivery tag is none of ours: it is returned, so that the worker can say so, and dropped.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local left = tonumber(ARGV[1])
local queues = #KEYS - 2
local fetched = {}

for i = 2 + queues, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
  redis.call('ZREM', KEYS[2], ARGV[i])
end

for i = 1, queues do
  local queue, limit = KEYS[2 + i], math.min(left, tonumber(ARGV[1 + i]))
  local messages = limit > 0 and redis.call('RPOP', queue, limit) or {}
  for _, message in ipairs(messages) do
    local tag = string.match(message, '.*"delivery_tag": ?"([^"]+)"') -- the last one, as headers come first
    if tag then
      redis.call('HSET', KEYS[1], tag, '[' .. message .. ', "", "' .. queue .. '"]')
      redis.call('ZADD', KEYS[2], now, tag)
    end
    fetched[#fetched + 1] = i
    fetched[#fetched + 1] = message
  end
  left = left - #messages
  if #messages < limit then
    redis.call('EXISTS', queue)
  end
end
return fetched
