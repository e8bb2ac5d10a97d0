-- core/lease/entry.py. Members, leases and logs are lists, so that MessagePack keeps their order; there are few of each.

local function find(list, field, value)
  for i = 1, #list do
    if list[i][field] == value then
      return list[i], i
    end
  end
end

local function place_of(list, value)
  for i = 1, #list do
    if list[i] == value then
      return i
    end
  end
end

local function drop(list, value)
  local place = place_of(list, value)
  if place then
    table.remove(list, place)
  end
end

local function keep(list, is_kept)
  local left, length = 0, #list
  for i = 1, length do
    if is_kept(list[i]) then
      left = left + 1
      list[left] = list[i]
    end
  end
  for i = left + 1, length do
    list[i] = nil
  end
end

local function gone_at(member)
  return member.left_at or member.seen + LAPSE
end

local function lends_to(entry, member)
  return member.refusal == '' and entry.last < gone_at(member)
end

local function is_other(entry, member, name)
  return member.name ~= name and lends_to(entry, member)
end

-- A list of { per, most, counts, depth }.
local function caps_of(entry, now)
  local caps, known = {}, {}
  for _, member in ipairs(entry.members) do
    for _, told in ipairs(member.caps) do
      local per, most, counts, depth = told[1], told[2], told[3], told[4]
      if now < gone_at(member) + at_most(span_of(told)) then
        local name = per * 4 + counts * 2 + min(depth, 1)
        local cap = known[name]
        if cap then
          cap[2] = min(cap[2], most)
          cap[4] = min(cap[4], depth)
        else
          cap = { per, most, counts, depth }
          known[name] = cap
          caps[#caps + 1] = cap
        end
      end
    end
  end
  return caps
end

local function same_caps(one, other)
  if #one ~= #other then
    return false
  end
  for i = 1, #one do
    for field = 1, 4 do
      if one[i][field] ~= other[i][field] then
        return false
      end
    end
  end
  return true
end

local function alike(one, other)
  return one[1] == other[1] and one[3] == other[3] and (one[4] > 0) == (other[4] > 0)
end

-- The member by whose word this limit holds; nil: it is the own.
local function whose(entry, member, cap)
  local ours
  for _, own in ipairs(member.caps) do
    if alike(own, cap) then
      ours = own
    end
  end
  if ours and ours[2] == cap[2] and ours[4] == cap[4] then
    return nil
  end
  for _, other in ipairs(entry.members) do
    for _, one in ipairs(other.caps) do
      if alike(one, cap) and entry.last < gone_at(other) + at_most(span_of(one))
          and (not ours or (one[2] < ours[2] and one[2] == cap[2]) or (one[4] == cap[4] and one[4] < ours[4])) then
        return other.name
      end
    end
  end
end

-- As JSON, of { per, most, counts, depth, whose }; '' without any.
local function lower_of(entry, member)
  local are_same = true
  for _, other in ipairs(entry.members) do
    are_same = are_same and (other == member or same_caps(other.caps, member.caps))
  end
  if are_same then
    return ''
  end
  local found = {}
  for _, cap in ipairs(caps_of(entry, entry.last)) do
    local name = whose(entry, member, cap)
    if name then
      found[#found + 1] = { cap[1], cap[2], cap[3], cap[4], name }
    end
  end
  return #found > 0 and cjson.encode(found) or ''
end

local function leased_since(entry, instant)
  local calls, cost = 0, 0
  for _, member in ipairs(entry.members) do
    for _, lease in ipairs(member.leases) do
      if lease.arrived > instant then
        calls = calls + lease.calls
        cost = cost + lease.cost
      end
    end
  end
  return calls, cost
end

-- What a member may have in flight: Slots.charge.
local function charge_of(slots, now)
  return now < slots.valid + at_most(slots.timeout) and max(slots.allotted, slots.holds) or 0
end

local function late_of(member)
  return member.life + at_most(member.jitter)
end

local function level_of(entry, cap)
  for _, level in ipairs(entry.levels) do
    if level.per == cap[1] and level.counts == cap[3] then
      return level
    end
  end
end

local function fill(entry, calls, cost)
  for _, level in ipairs(entry.levels) do
    level.filled = level.filled + (level.counts == 0 and calls or cost) * level.per
  end
end

-- core/lease/less.py.
local function fact_of(entry, of, cap)
  local name = string.format('%s/%d/%d/%d', of, cap[1], cap[3], min(cap[4], 1))
  return find(entry.facts, 1, name), name
end

local function lowered(entry, caps, now)
  if #entry.facts == 0 then
    return caps
  end
  local lower = {}
  for place, cap in ipairs(caps) do
    local less, cut, others = 0, (fact_of(entry, 'cut', cap)), (fact_of(entry, 'others', cap))
    if cut and cut[2] > now then
      less = min(cut[3], ceil((cut[2] - now) / cap[1]) * max(1, floor(cap[2] / STEP)))
    end
    local most = max(1, cap[2] - less)
    if cap[4] == 0 then
      most = cap[2] - less - (others and others[2] > now and others[3] or 0)
    end
    lower[place] = { cap[1], most, cap[3], cap[4] }
  end
  return lower
end

local function move_on(entry, now)
  local before = entry.last
  entry.last = now
  if #entry.levels == 0 then
    return
  end
  for _, cap in ipairs(lowered(entry, caps_of(entry, now), now)) do
    if cap[4] > 0 then
      leak(level_of(entry, cap), cap, now)
    end
  end
  for _, member in ipairs(entry.members) do
    for _, lease in ipairs(member.leases) do
      if before < lease.arrived and lease.arrived <= now then
        fill(entry, lease.calls, lease.cost)
      end
    end
  end
end

local function record_all(entry, instant, calls, cost)
  for _, log in ipairs(entry.logs) do
    record(log, instant, calls, cost)
  end
end
