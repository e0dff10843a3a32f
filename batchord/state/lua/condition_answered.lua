-- Notes that a provider answered well: its failures were not in a row, and after a probe its circuit is closed.
-- KEYS  1 the condition
-- ARGV  1 the channel, 2 the worker, 3 how long ago the request was sent, 4 1 if it was the probe
-- Gives the condition.
-- Atomic, so that an answer and a failure count in the order in which they came.
local condition = load(KEYS[1])
local is_news = not condition.answered_at or condition.failing_since or condition.failures or condition.pauses
if ARGV[4] == '1' and condition.probe == ARGV[2] then
  condition.open_until, condition.opens, condition.probe, condition.probe_until = nil, nil, nil, nil
  condition.changed_at, is_news = now, true
end
condition.answered_at, condition.failing_since, condition.failures = now, nil, nil
if now - tonumber(ARGV[3]) >= number(condition, 'pause_until') then
  condition.pause_until, condition.pauses = nil, nil
  if not condition.open_until then condition.reason = nil end
end
return keep(KEYS[1], condition, is_news and ARGV[1])
