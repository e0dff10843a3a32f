-- Gives one page of a listing, a sorted set whose scores are times: the members that come after one, in either direction.
-- KEYS  1 the listing
-- ARGV  1 the member after which to begin ('' for the first), 2 how many at most, 3 'newest' or 'oldest' first,
--       4 and 5 the lowest and the highest score wanted
-- Gives the members, or nil where the member to begin after is not in the listing.
-- Atomic, so that the place of that member is still its place when the page is read.
local newest = ARGV[3] == 'newest'
local before, through
if newest then
  before, through = redis.call('ZCOUNT', KEYS[1], '(' .. ARGV[5], '+inf'), redis.call('ZCOUNT', KEYS[1], ARGV[4], '+inf')
else
  before, through = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[4]), redis.call('ZCOUNT', KEYS[1], '-inf', ARGV[5])
end
local first = before
if ARGV[1] ~= '' then
  local rank = redis.call(newest and 'ZREVRANK' or 'ZRANK', KEYS[1], ARGV[1])
  if not rank then return false end
  first = math.max(first, rank + 1)
end
local last = math.min(first + tonumber(ARGV[2]), through) - 1
if last < first then return {} end
return redis.call(newest and 'ZREVRANGE' or 'ZRANGE', KEYS[1], first, last)
