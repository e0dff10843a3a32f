-- Reads conditions.
-- KEYS  the conditions
-- Gives each as JSON, with the time.
-- One script, so that the time is that of Redis.
local answer = {}
for i, key in ipairs(KEYS) do answer[i] = told(key, load(key)) end
return answer
