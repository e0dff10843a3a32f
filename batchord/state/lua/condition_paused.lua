-- Pauses a provider, for as long as it asked for or by backoff.
-- KEYS  1 the condition
-- ARGV  1 the channel, 2 how long ago the refused request was sent, 3 for how long to pause (0 where the provider did not say),
--       4 chance from 0 to 1, 5 the reason, 6 1 if the provider is well else
-- Gives the condition.
-- Atomic, so that requests refused together back off once: those sent before the end of a pause are its own.
local condition = load(KEYS[1])
local sent, wait = now - tonumber(ARGV[2]), tonumber(ARGV[3])
local pause_until = number(condition, 'pause_until')
if wait == 0 and sent >= pause_until then
  condition.pauses = number(condition, 'pauses') + 1
  wait = backoff(condition.pauses, 240, tonumber(ARGV[4])) / 4 -- from a quarter of a second to a minute
end
if wait > 0 then
  condition.pause_until, condition.reason = math.max(pause_until, now + math.min(wait, 86400)), ARGV[5]
end
if ARGV[6] == '1' then condition.answered_at, condition.failing_since = now, nil end
return keep(KEYS[1], condition, ARGV[1])
