-- What begins the scripts that ask who sends a line, after `_clock`.

-- Whether a worker has said within `claim_s` that it lives. What it said in the future is of a clock that was set back.
local function is_alive(owners, worker, claim_s)
  local said = redis.call('HGET', owners, worker)
  return said and now >= tonumber(said) and now - said < claim_s
end

-- Whether a worker may call others dead: it has been in touch with Redis, never silent for more than a third of a claim,
-- for as long as a claim holds. So after an outage of Redis the living have the time to say that they live.
local function may_judge(in_touch_since, in_touch_until, claim_s)
  local silence = now - in_touch_until
  return silence >= 0 and silence <= claim_s / 3 and now - in_touch_since >= claim_s
end
