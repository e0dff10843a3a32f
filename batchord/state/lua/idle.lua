-- Lists the open shards of one provider by how long they have made no progress.
-- KEYS  1 the provider's sorted set of open shards
-- Gives {number, seconds as text} of each, the stillest first.
-- One script, so that the times are compared by the clock that gave them.
local open = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
local answer = {}
for i = 1, #open, 2 do answer[#answer + 1] = {tonumber(open[i]), tostring(now - open[i + 1])} end
return answer
