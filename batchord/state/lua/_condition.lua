-- What the scripts of providers' conditions begin with: a condition is a hash, and none where all is well.
-- Times are in seconds, those of Redis. A circuit is open or half open exactly while there is `open_until`.
local function load(key)
  local condition, entries = {}, redis.call('HGETALL', key)
  for i = 1, #entries, 2 do condition[entries[i]] = entries[i + 1] end
  return condition
end

local function number(condition, field)
  return tonumber(condition[field] or 0)
end

local function told(key, condition)
  local message = {provider = string.match(key, '[^:]+$'), now = string.format('%.6f', now)}
  for field, value in pairs(condition) do message[field] = value end
  return cjson.encode(message)
end

-- Keeps a condition for two days, tells it to the fleet if it is news, gives it as JSON.
local function keep(key, condition, channel)
  local entries = {}
  for field, value in pairs(condition) do
    if type(value) == 'number' then value = string.format(value % 1 == 0 and '%d' or '%.6f', value) end
    condition[field] = value
    entries[#entries + 1] = field
    entries[#entries + 1] = value
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(entries))
  redis.call('EXPIRE', key, 172800)
  local message = told(key, condition)
  if channel then redis.call('PUBLISH', channel, message) end
  return message
end

-- Gives how long to leave a provider alone the n-th time in a row: 1 s, then twice as long each time, and some more by chance.
local function backoff(times, most, chance)
  return math.min(most, 2 ^ math.min(times - 1, 10)) * (1 + chance / 4)
end
