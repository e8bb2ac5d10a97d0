-- core/lease/level.py. A `per` of so many microseconds is as many parts of a call.

local function up(value, by)
  return floor((value + by - 1) / by)
end

local function full(cap, at)
  return { per = cap[1], counts = cap[3], filled = cap[4] * cap[1], at = at }
end

local function most_of(cap, late)
  if cap[4] == 0 then
    return cap[2]
  end
  return max(1, floor((cap[4] * cap[1] - cap[2] * late) / cap[1]))
end

local function shape(cap, late)
  local unit, flow = cap[1], cap[2] * late
  local depth = cap[4] * unit - flow
  if depth >= unit then
    return depth, DRIFT + 1
  end
  return unit, up((DRIFT + 1) * (unit + flow), cap[4] * unit)
end

local function free_of(level, cap, late, now)
  local depth, slow = shape(cap, late)
  local passed = now - level.at
  if passed > 0 then
    level.at = now
    passed = floor(passed * DRIFT / slow)
    level.filled = passed <= floor(level.filled / cap[2]) and level.filled - passed * cap[2] or 0
  end
  return floor((depth - level.filled) / cap[1])
end

local function free_after(level, amount, cap, late)
  local depth, slow = shape(cap, late)
  return up(max(0, level.filled + amount * cap[1] - depth) * slow, cap[2] * DRIFT)
end

-- After how long nothing that was spent counts any more.
local function span_of(cap)
  return cap[4] == 0 and cap[1] or up(cap[4] * cap[1], cap[2])
end
