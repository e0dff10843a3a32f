-- Takes or prolongs the right to send the one request that finds out whether a provider is well again.
-- KEYS  1 the condition
-- ARGV  1 the channel, 2 the worker, 3 for how many seconds
-- Gives the condition; its `probe` is the worker that has the right.
-- Atomic, so that one worker of the fleet has it at a time.
local condition = load(KEYS[1])
local is_due = condition.open_until and now >= number(condition, 'open_until') and now >= number(condition, 'pause_until')
local is_free = not condition.probe or now >= number(condition, 'probe_until')
if condition.probe ~= ARGV[2] and not (is_due and is_free) then return told(KEYS[1], condition) end
condition.probe, condition.probe_until = ARGV[2], now + tonumber(ARGV[3])
return keep(KEYS[1], condition, ARGV[1])
