-- core/lease/shares.py.

-- a * b / c, rounded up, exactly: the product of two numbers below 2^40 has more digits than a double.
local function part_of(a, b, c)
  local quotient, rest = 0, 0
  for place = 3, 0, -1 do
    local digit = floor(b / 4096 ^ place) % 4096
    rest = rest * 4096 + a * digit
    quotient = quotient * 4096 + floor(rest / c)
    rest = rest % c
  end
  return rest > 0 and quotient + 1 or quotient
end

local function fair(wants, free)
  local left, count = free, #wants
  table.sort(wants)
  for place = 1, count do
    local share = floor(left / (count - place + 1))
    if wants[place] > share then
      return max(1, share)
    end
    left = left - wants[place]
  end
  return max(1, free)
end

local function part(member, share_calls, share_cost)
  return min(member.want_calls, share_calls), min(member.want_cost, max(share_cost, member.least))
end

local function even(member, calls, cost, free_calls, free_cost)
  calls, cost = min(calls, free_calls), min(cost, free_cost)
  if calls <= 0 or cost < member.least then
    return 0, 0
  end
  if member.want_cost > 0 then
    calls = min(calls, part_of(member.want_calls, cost, member.want_cost))
    local first = member.least > 0 and member.least or ceil(member.want_cost / member.want_calls)
    cost = min(cost, first + part_of(member.want_cost - first, calls - 1, max(1, member.want_calls - 1)))
  end
  return calls, cost
end

local function room_at(entry, cap, missing, now)
  if missing <= 0 then
    return now
  end
  local log, counts = find(entry.logs, 'per', cap[1]), cap[3]
  local ends, amounts = {}, counts == 0 and log.n or log.c
  for i = 1, #log.at do
    ends[i] = { log.at[i] + kept(log), amounts[i] }
  end
  for _, member in ipairs(entry.members) do
    for _, lease in ipairs(member.leases) do
      ends[#ends + 1] = { lease.arrived + kept(log), counts == 0 and lease.calls or lease.cost }
    end
  end
  table.sort(ends, function(one, other) return one[1] < other[1] end)
  for _, one in ipairs(ends) do
    missing = missing - one[2]
    if missing <= 0 then
      return max(one[1], now)
    end
  end
  return now + BEAT
end

-- Returns calls, cost, and after how long to ask for more.
local function grant(entry, round, me)
  local now, queue, name = entry.last, entry.queue, me.name
  me.want_calls, me.want_cost = round.want[1], round.want[2]
  me.least = min(round.least, me.want_cost)
  local delay = round.delay or 0 -- of replicas before there was one
  me.turn = max(TURN, 2 * round.round_trip, 2 * delay)
  local nominal, free = caps_of(entry, now), { FAR, FAR }
  local caps = lowered(entry, nominal, now)
  local open = { leased_since(entry, now) }
  for _, cap in ipairs(caps) do
    local counts = cap[3]
    if cap[4] > 0 then
      cap.free = free_of(level_of(entry, cap), cap, open[counts + 1])
    else
      local log = find(entry.logs, 'per', cap[1])
      local calls, cost = leased_since(entry, now - kept(log))
      cap.free = cap[2] - (counts == 0 and log.calls + calls or log.cost + cost)
    end
    free[counts + 1] = min(free[counts + 1], cap.free)
  end
  for _, cap in ipairs(nominal) do
    if cap[3] == 1 and me.least > (cap[4] > 0 and cap[4] or cap[2]) then
      me.want_calls, me.want_cost = 0, 0
    end
  end
  local members = {}
  for _, member in ipairs(entry.members) do
    members[member.name] = member
  end
  keep(queue, function(one) return one == name or now <= members[one].due + members[one].turn end)
  if me.want_calls == 0 then
    drop(queue, name)
    return 0, 0, round.want[1] > 0 and BEAT or 0
  end
  if not place_of(queue, name) then
    queue[#queue + 1] = name
  end
  local soon = now + max(floor(round.life / PACE), floor(delay / 2))
  local place = place_of(queue, name)
  local want_calls, want_cost = {}, {}
  for number, one in ipairs(queue) do
    if one == name or members[one].due <= (number < place and soon or now) then
      want_calls[#want_calls + 1] = members[one].want_calls
      want_cost[#want_cost + 1] = members[one].want_cost
    end
  end
  local share_calls, share_cost = fair(want_calls, free[1]), fair(want_cost, free[2])
  local least = 0
  for _, one in ipairs(queue) do
    if one == name then
      break
    end
    local member = members[one]
    least = least + member.least
    if member.due <= soon then
      local calls, cost = part(member, share_calls, share_cost)
      free[1] = free[1] - calls
      free[2] = free[2] - cost
    else
      free[2] = free[2] - member.least
    end
  end
  local my_calls, my_cost = part(me, share_calls, share_cost)
  local calls, cost = even(me, my_calls, my_cost, free[1], free[2])
  if calls > 0 then
    me.want_calls, me.want_cost = me.want_calls - calls, max(0, me.want_cost - cost)
    drop(queue, name)
    if me.want_calls > 0 then
      queue[#queue + 1] = name
    end
  end
  if me.want_calls == 0 then
    return calls, cost, 0
  end
  local ahead = { place_of(queue, name) + calls, least + me.least + cost }
  local latest, shortest = now, FAR
  for _, cap in ipairs(caps) do
    local amount = ahead[cap[3] + 1]
    if cap[4] > 0 then
      latest = max(latest, now + free_after(level_of(entry, cap), amount, cap, open[cap[3] + 1]))
    else
      latest = max(latest, room_at(entry, cap, amount - cap.free, now))
    end
  end
  for _, cap in ipairs(nominal) do
    shortest = min(shortest, span_of(cap))
  end
  local again = min(max(latest, soon) - now, lag_of(shortest))
  me.due = now + again
  return calls, cost, again
end
