-- Gives a probe back that was not sent, or whose answer says nothing.
-- KEYS  1 the condition
-- ARGV  1 the channel, 2 the worker
-- Gives the condition.
-- Atomic, so that the probe of another worker stays.
local condition = load(KEYS[1])
if condition.probe ~= ARGV[2] then return told(KEYS[1], condition) end
condition.probe, condition.probe_until = nil, nil
return keep(KEYS[1], condition, ARGV[1])
