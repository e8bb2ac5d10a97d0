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

local function is_other(entry, member, name)
  return member.name ~= name and member.refusal == '' and entry.last < gone_at(member)
end

-- A list of { per, most, counts }.
local function caps_of(entry, now)
  local caps, known = {}, {}
  for _, member in ipairs(entry.members) do
    for _, told in ipairs(member.caps) do
      local per, most, counts = told[1], told[2], told[3]
      if now < gone_at(member) + at_most(per) then
        local name = per * 2 + counts
        local cap = known[name]
        if cap then
          cap[2] = min(cap[2], most)
        else
          cap = { per, most, counts }
          known[name] = cap
          caps[#caps + 1] = cap
        end
      end
    end
  end
  return caps
end

local function leased(entry, log, now)
  local calls, cost = 0, 0
  for _, member in ipairs(entry.members) do
    for _, lease in ipairs(member.leases) do
      if now < lease.arrived + kept(log) then
        calls = calls + lease.calls
        cost = cost + lease.cost
      end
    end
  end
  return calls, cost
end

local function record_all(entry, instant, calls, cost)
  for _, log in ipairs(entry.logs) do
    record(log, instant, calls, cost)
  end
end
