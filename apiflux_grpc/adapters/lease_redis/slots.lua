-- core/lease/slots.py. What is asked is { most, timeout, holds, wants }.

local function hear_slots(entry, member, round)
  local asked = round.slots
  if not asked then
    return
  end
  local slots = member.slots or { allotted = 0, since = 0, next_since = -1 }
  member.slots = slots
  slots.most, slots.timeout, slots.holds, slots.wants = asked[1], asked[2], asked[3], asked[4]
  slots.valid = entry.last + round.life
  if slots.allotted == 0 then
    slots.since = entry.last
  end
  slots.allotted = 0
end

local function most_of(entry)
  local most
  for _, member in ipairs(entry.members) do
    local slots = member.slots
    if slots and (lends_to(entry, member) or charge_of(slots, entry.last) > 0) then
      most = min(most or slots.most, slots.most)
    end
  end
  return most or 0
end

-- The part of the one at this place.
local function even_part(wants, room, place)
  local left, rest, count = max(0, room), {}, #wants
  for i = 1, count do
    rest[i] = wants[i]
  end
  table.sort(rest)
  local level, more = rest[count], 0
  for i = 1, count do
    local among = count - i + 1
    local share = floor(left / among)
    if rest[i] > share then
      level, more = share, left - share * among
      break
    end
    left = left - rest[i]
  end
  for i = 1, count do
    local one = (wants[i] > level and more > 0) and 1 or 0
    more = more - one
    if i == place then
      return min(wants[i], level) + one
    end
  end
end

local function allot(entry, round, member)
  local now, line, name, mine = entry.last, entry.queue, member.name, member.slots
  local all = {}
  for _, one in ipairs(entry.members) do
    all[one.name] = one.slots
  end
  if not place_of(line, name) then
    line[#line + 1] = name
  end
  keep(line, function(one) return now < all[one].valid and all[one].wants > 0 end)
  local most, charges, absent = most_of(entry), 0, 0
  for _, one in ipairs(entry.members) do
    if one.slots then
      local charge = charge_of(one.slots, now)
      charges = charges + charge
      if not place_of(line, one.name) then
        absent = absent + charge
      end
    end
  end
  local room, place = most - absent, place_of(line, name)
  if room < #line and place and place <= room and now - mine.since >= floor(round.life * 3 / 4) then
    drop(line, name)
    line[#line + 1] = name
  end
  place = place_of(line, name)
  local part = 0
  if place then
    local wants = {}
    for i = 1, #line do
      wants[i] = all[line[i]].wants
    end
    part = even_part(wants, room, place)
  end
  mine.allotted = max(0, min(part, most - charges + charge_of(mine, now)))
  if mine.allotted >= mine.wants then
    mine.next_since = -1
    return 0
  end
  if part <= mine.allotted and (part > 0 or place > 2 * room) then
    mine.next_since = -1
    return floor(round.life / 2)
  end
  if mine.next_since < 0 then
    mine.next_since = now
  end
  return min(max(floor((now - mine.next_since) / 8), SLOT_PACE), floor(round.life / 2))
end

-- As JSON, { slots, most, scarce, timeout }; '' without any.
local function words_allotted(entry, member)
  local slots = member.slots
  if not slots then
    return ''
  end
  local scarce = false
  for _, other in ipairs(entry.members) do
    local its = other.slots
    scarce = scarce or (other ~= member and its and entry.last < its.valid and its.allotted < its.wants) or false
  end
  return cjson.encode({ slots.allotted, most_of(entry), scarce, longest_timeout(entry) })
end
