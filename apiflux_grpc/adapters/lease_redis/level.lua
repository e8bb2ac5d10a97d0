-- core/lease/level.py. A `per` of so many microseconds is as many parts of a call.

local function up(value, by)
  return floor((value + by - 1) / by)
end

local function full(cap, at)
  return { per = cap[1], counts = cap[3], filled = cap[4] * cap[1], at = at }
end

local function leak(level, cap, now)
  local passed = now - level.at
  if passed > 0 then
    level.at = now
    passed = floor(passed * DRIFT / (DRIFT + 1))
    level.filled = passed <= floor(level.filled / cap[2]) and level.filled - passed * cap[2] or 0
  end
end

local function free_of(level, cap, leased)
  return floor((cap[4] * cap[1] - level.filled) / cap[1]) - leased
end

local function free_after(level, amount, cap, leased)
  return up(max(0, level.filled + (amount + leased - cap[4]) * cap[1]) * (DRIFT + 1), cap[2] * DRIFT)
end

-- After how long nothing that was spent counts any more.
local function span_of(cap)
  return cap[4] == 0 and cap[1] or up(cap[4] * cap[1], cap[2])
end
