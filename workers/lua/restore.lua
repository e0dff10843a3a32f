-- Puts unacknowledged messages back to the head of their queues, marked as redelivered.
--
-- KEYS     unacked, index (and the queues that the records name: this is not for Redis Cluster)
-- ARGV     seconds without a sign of life that a message must have, tags...
-- Returns  the tags that it left alone because their record names an exchange, which only kombu can route
-- Atomic   because a message must never be in neither place, and its worker may renew or acknowledge it meanwhile.
local time = redis.call('TIME')
local newest = time[1] + time[2] / 1000000 - tonumber(ARGV[1])
local foreign = {}

local function redelivered(message)
  if string.find(message, '"delivery_info": ?{"redelivered": true') then
    return message
  end
  return (string.gsub(message, '("delivery_info": ?{)(.)', function(open, next)
    return open .. '"redelivered": true' .. (next == '}' and next or ', ' .. next)
  end, 1))
end

local function restore(tag, record)
  local message, exchange, queue = string.match(record, '^%[(.*), ?"([^"]*)", ?"([^"]*)"%]$')
  if exchange ~= '' then
    foreign[#foreign + 1] = tag
    return
  end
  redis.call('HDEL', KEYS[1], tag)
  redis.call('ZREM', KEYS[2], tag)
  redis.call('RPUSH', queue, redelivered(message))
end

for i = 2, #ARGV do
  local seen = redis.call('ZSCORE', KEYS[2], ARGV[i])
  local record = redis.call('HGET', KEYS[1], ARGV[i])
  if seen and tonumber(seen) <= newest then
    if record then
      restore(ARGV[i], record)
    else
      redis.call('ZREM', KEYS[2], ARGV[i])
    end
  end
end
return foreign
