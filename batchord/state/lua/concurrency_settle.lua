-- Sets a provider's limit and its course, unless the turn has passed on to another worker.
-- KEYS  1 the provider's limit
-- ARGV  1 the time of the turn, 2 the limit, 3 the course, 4 for how many seconds they are remembered
-- Gives 1, or 0 where nothing changed.
-- Atomic, so that a worker that was stopped in its turn cannot undo what others found since.
if tonumber(redis.call('HGET', KEYS[1], 'at') or 0) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'limit', ARGV[2], 'course', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
