-- core/lease/terms.py and log.py. Every span and instant is a whole number of microseconds.

local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local function at_most(span)
  return span + floor(span / DRIFT) + 1
end

local function lag_of(shortest)
  return min(BEAT, floor(shortest / 8))
end

-- A log's groups are three arrays side by side, in the order of time: quicker to write down than a table of each, and
-- what ends next comes first.
local function new_log(per, opens)
  return { per = per, opens = opens, calls = 0, cost = 0, at = {}, n = {}, c = {} }
end

local function kept(log)
  return at_most(log.per)
end

local function record(log, instant, calls, cost)
  log.calls = log.calls + calls
  log.cost = log.cost + cost
  local span = max(1, floor(log.per / GROUPS))
  local at, place = log.at, floor(instant / span)
  local i = #at
  while i > 0 and floor(at[i] / span) > place do
    i = i - 1
  end
  if i > 0 and floor(at[i] / span) == place then
    at[i] = max(at[i], instant)
    log.n[i] = log.n[i] + calls
    log.c[i] = log.c[i] + cost
  else
    table.insert(at, i + 1, instant)
    table.insert(log.n, i + 1, calls)
    table.insert(log.c, i + 1, cost)
  end
end

local function expire(log, now)
  local at, length, ended, over = log.at, #log.at, now - kept(log), 0
  while over < length and at[over + 1] <= ended do
    over = over + 1
    log.calls = log.calls - log.n[over]
    log.cost = log.cost - log.c[over]
  end
  if over == 0 then
    return
  end
  for i = 1, length do
    at[i], log.n[i], log.c[i] = at[i + over], log.n[i + over], log.c[i + over]
  end
end

local function heir(log, per, now)
  local unknown = max(log.opens - kept(log), now - kept(log)) + at_most(per)
  local new = new_log(per, unknown <= now and 0 or unknown)
  for i = 1, #log.at do
    record(new, log.at[i], log.n[i], log.c[i])
  end
  expire(new, now)
  return new
end
