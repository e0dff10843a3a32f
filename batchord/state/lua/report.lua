-- Keeps what a worker reports of providers, for a minute.
-- KEYS  each provider's reports: worker to "<time> <report>"
-- ARGV  for each provider: the worker, its report
-- Gives nothing.
-- One script, so that the time is that of Redis.
for i, key in ipairs(KEYS) do
  redis.call('HSET', key, ARGV[2 * i - 1], string.format('%.3f ', now) .. ARGV[2 * i])
  redis.call('EXPIRE', key, 60)
end
