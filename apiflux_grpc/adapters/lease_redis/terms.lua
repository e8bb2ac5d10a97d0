-- core/lease/terms.py and log.py. Every span and instant is a whole number of microseconds.

local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min

local function at_most(span)
  return span + floor(span / DRIFT) + 1
end

local function lag_of(shortest)
  return min(BEAT, floor(shortest / 8))
end

-- A log's groups are three arrays side by side, for that is quicker to read and write than a table of each.
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
  local place = floor(instant / span)
  for i = #log.at, 1, -1 do -- the newest are last, more or less
    if floor(log.at[i] / span) == place then
      log.at[i] = max(log.at[i], instant)
      log.n[i] = log.n[i] + calls
      log.c[i] = log.c[i] + cost
      return
    end
  end
  local last = #log.at + 1
  log.at[last], log.n[last], log.c[last] = instant, calls, cost
end

local function expire(log, now)
  local left, length = 0, #log.at
  local ended = now - kept(log)
  for i = 1, length do
    if log.at[i] <= ended then
      log.calls = log.calls - log.n[i]
      log.cost = log.cost - log.c[i]
    else
      left = left + 1
      log.at[left], log.n[left], log.c[left] = log.at[i], log.n[i], log.c[i]
    end
  end
  for i = left + 1, length do
    log.at[i], log.n[i], log.c[i] = nil, nil, nil
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
