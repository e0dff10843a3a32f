-- Counts failures of a provider; opens its circuit after 5 in a row, after that of a probe, or where it is to be given up.
-- Those in a row take a quarter of a second at least: of a thousand requests a second some will fail beside each other.
-- KEYS  1 the condition
-- ARGV  1 the channel, 2 the worker, 3 how long ago the last of the requests was sent, 4 how many failures that count,
--       5 1 if it was the probe, 6 after how long a failing provider is given up (0 for never), 7 chance from 0 to 1,
--       8 the reason
-- Gives the condition.
-- Atomic, so that each failure counts once. What was sent before the circuit opened or closed tells nothing new.
local condition = load(KEYS[1])
local is_probe = ARGV[5] == '1' and condition.probe == ARGV[2]
local sent = now - tonumber(ARGV[3])
if not is_probe and (condition.open_until or sent < number(condition, 'changed_at')) then
  return told(KEYS[1], condition)
end
if not condition.failing_since or now - number(condition, 'failed_at') > 900 then
  condition.failing_since = now -- what failed a quarter of an hour ago, and was not tried since, is another story
end
condition.failed_at, condition.reason = now, ARGV[8]
condition.failures = number(condition, 'failures') + tonumber(ARGV[4])
local patience, failing = tonumber(ARGV[6]), now - number(condition, 'failing_since')
if is_probe or (condition.failures >= 5 and failing >= 0.25) or (patience > 0 and failing >= patience) then
  condition.opens = number(condition, 'opens') + 1
  condition.changed_at, condition.open_until = now, now + backoff(condition.opens, 30, tonumber(ARGV[7]))
  condition.failures, condition.probe, condition.probe_until = nil, nil, nil
end
return keep(KEYS[1], condition, ARGV[1])
