-- What begins the scripts that need the time, which is that of Redis, for those of its callers differ.
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
