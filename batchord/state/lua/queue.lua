-- Tells who waits for room in a provider's window, and how much of it each tenant has.
-- KEYS  1 the provider's list of batches that wait, whose members begin with the tenant, 2 its open lines by tenant
-- Gives the first member of each tenant, then the open lines as tenant, lines, ...
-- Atomic, so that what is open and who waits are of one moment. As many rounds as tenants wait.
local first = {}
local found = redis.call('ZRANGEBYLEX', KEYS[1], '-', '+', 'LIMIT', 0, 1)
while found[1] do
  first[#first + 1] = found[1]
  local after = '(' .. string.match(found[1], '^%S+') .. '!' -- which sorts after each member of this tenant
  found = redis.call('ZRANGEBYLEX', KEYS[1], after, '+', 'LIMIT', 0, 1)
end
return {first, redis.call('HGETALL', KEYS[2])}
