-- Gives waiting requests the times at which to send them, so that all workers together keep a provider's rates.
-- KEYS  1 the provider's rates: a bucket to "<free from> <written at>"
-- ARGV  1 how many seconds ahead times are given, 2 for how many seconds a bucket may be taken at most,
--       3 for how many seconds the rates are kept, 4 how many buckets,
--       then for each bucket: its name, 1 if others use it too, by how many seconds to correct it,
--       then for each request and bucket: how many seconds of the bucket it takes
-- Gives, in microseconds: the time, after how long to ask again, and the delays of the requests that got a time.
-- Atomic, so that no two requests get the same time. A bucket holds no credit: what was not used is gone.
local ahead, most, count = tonumber(ARGV[1]), now + ARGV[2], tonumber(ARGV[4])
local buckets, first = {}, 5 + 3 * count
for i = 1, count do
  local name, correction = ARGV[2 + 3 * i], tonumber(ARGV[4 + 3 * i])
  local free, written = string.match(redis.call('HGET', KEYS[1], name) or '0 0', '^(%S+) (%S+)$')
  free = free - math.max(0, written - now) -- a clock that was set back takes along what was reserved by it
  free = math.max(free + correction, math.min(free, now))
  buckets[i] = {name = name, free = free, is_shared = ARGV[3 + 3 * i] == '1'}
end

local function free_from()
  local at = now
  for _, bucket in ipairs(buckets) do at = math.max(at, bucket.free) end
  return at
end

local function microseconds(seconds) return math.floor(seconds * 1000000 + 0.5) end

local answer = {microseconds(now), 0}
for i = first, #ARGV, count do
  local at = free_from()
  if at > now + ahead then break end
  answer[#answer + 1] = microseconds(at - now)
  for j, bucket in ipairs(buckets) do
    -- What others use too is not kept for the gaps that this lane must leave.
    bucket.free = (bucket.is_shared and math.max(bucket.free, now) or at) + ARGV[i + j - 1]
  end
end
for _, bucket in ipairs(buckets) do
  bucket.free = math.min(bucket.free, most)
  redis.call('HSET', KEYS[1], bucket.name, string.format('%.6f %.6f', bucket.free, now))
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
answer[2] = microseconds(math.max(0, free_from() - now - ahead / 2))
return answer
