-- Gives a worker its part of each lane's limit, so that all parts together never pass it.
-- KEYS  1 every worker's parts: "<lane> <worker>" to "<part> <until> <1 if it wants one>"
-- ARGV  1 the worker, 2 for how many seconds its parts count unless it asks again,
--       then for each lane: its name, how many permits it holds or may take before it hears the answer, the limit
--       (0 to leave), how many workers there are at least
-- Gives for each lane: the part, and what it has a right to once the others have let go.
-- Atomic, so that two never take the same permits. Of a part that shrinks, what is held still counts.
local taken, others = {}, {}
local entries = redis.call('HGETALL', KEYS[1])
for i = 1, #entries, 2 do
  local lane, worker = string.match(entries[i], '^(.*) (%S+)$')
  local part, till, wants = string.match(entries[i + 1], '^(%d+) (%d+) (%d)$')
  if tonumber(till) < now then
    redis.call('HDEL', KEYS[1], entries[i])
  elseif worker ~= ARGV[1] then
    taken[lane] = (taken[lane] or 0) + tonumber(part)
    others[lane] = (others[lane] or 0) + tonumber(wants)
  end
end
local answer = {}
for i = 3, #ARGV, 4 do
  local lane, held, limit = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local workers = math.max((others[lane] or 0) + 1, tonumber(ARGV[i + 3]))
  local equal = math.ceil(limit / workers)
  local part = math.max(0, math.min(equal, limit - (taken[lane] or 0)))
  local field, wants = lane .. ' ' .. ARGV[1], limit > 0 and 1 or 0
  if held == 0 and wants == 0 then
    redis.call('HDEL', KEYS[1], field)
  else
    redis.call('HSET', KEYS[1], field, string.format('%d %d %d', math.max(part, held), math.floor(now) + tonumber(ARGV[2]), wants))
  end
  answer[#answer + 1] = part
  answer[#answer + 1] = math.floor(limit / workers)
end
return answer
