-- core/lease/serve.py.

local function commit(entry, lease, held)
  local groups, new_calls, new_cost = held[9], 0, 0
  if lease then
    new_calls = held[2] - lease.landed_calls
    new_cost = held[3] - lease.landed_cost
    lease.calls = lease.calls - (new_calls + held[4] - lease.returned_calls)
    lease.cost = lease.cost - (new_cost + held[5] - lease.returned_cost - (held[6] - lease.over))
    if lease.arrived > entry.last then
      fill(entry, new_calls, new_cost)
    else
      fill(entry, held[7] - lease.late_calls, held[6] - lease.over + held[8] - lease.late_cost)
    end
    lease.landed_calls, lease.landed_cost = held[2], held[3]
    lease.returned_calls, lease.returned_cost, lease.over = held[4], held[5], held[6]
    lease.late_calls, lease.late_cost = held[7], held[8]
  else
    for _, group in ipairs(groups) do
      new_calls = new_calls + group[1]
      new_cost = new_cost + group[2]
    end
    fill(entry, new_calls, new_cost)
  end
  for i = #groups, 1, -1 do
    local group = groups[i]
    local calls, cost = min(group[1], new_calls), min(group[2], new_cost)
    if calls > 0 or cost > 0 then
      record_all(entry, entry.last - group[3], calls, cost)
      new_calls = new_calls - calls
      new_cost = new_cost - cost
    end
  end
end

local function hear(entry, member, round, now)
  member.seen = min(now, entry.last + LAPSE)
  member.left_at = round.leaves and member.seen or nil
  member.caps, member.life, member.jitter = round.caps, round.life, round.jitter
  member.refused = round.refused
  know(entry, round)
  fill_levels(entry, round)
  learn(entry, round)
  hear_slots(entry, member, round)
  local memory = round.memory
  if memory and not place_of(entry.registered, round.incarnation) then
    entry.registered[#entry.registered + 1] = round.incarnation
    for _, name in ipairs(memory.roster) do
      if not place_of(entry.roster, name) then
        entry.roster[#entry.roster + 1] = name
      end
    end
    for _, group in ipairs(memory.landed) do
      record_all(entry, entry.last - group[3], group[1], group[2])
    end
    record_all(entry, entry.last + at_most(round.life + round.jitter), memory.open[1], memory.open[2])
  end
  if round.epoch ~= entry.epoch then
    return
  end
  keep(member.leases, function(lease)
    for _, held in ipairs(round.held) do
      if held[1] == lease.number then
        return true
      end
    end
    return false
  end)
  for _, held in ipairs(round.held) do
    commit(entry, find(member.leases, 'number', held[1]), held)
  end
end

local function ms(span)
  return string.format('%g ms', span / 1000)
end

local function refusal_of(entry, round)
  for _, other in ipairs(entry.members) do
    if is_other(entry, other, round.incarnation) then
      if other.life ~= round.life then
        return 'leases live ' .. ms(round.life) .. ' here, and ' .. ms(other.life) .. ' for others: make them the same'
      end
      if other.jitter ~= round.jitter then
        return 'arrival_jitter is ' .. ms(round.jitter) .. ' here, and ' .. ms(other.jitter)
          .. ' for others: make them the same'
      end
      if counts_cost(other.caps) and not counts_cost(round.caps) then
        return "others have limits of cost, which can't be kept for calls of a server without any: give it the same"
      end
    end
  end
  if 4 * round.round_trip > round.life then
    return 'the store answers in ' .. ms(round.round_trip) .. ', more than a quarter of the ' .. ms(round.life)
      .. ' that a lease lives: make leases longer, or the store nearer'
  end
  return ''
end

local function decide(entry, member, round, now)
  local calls, cost, again = 0, 0, 0
  local opens = max(0, opens_at(entry, round) - entry.last)
  if member.refusal ~= '' or round.leaves then
    again = BEAT
  elseif opens > 0 or not member.established then
    again = min(BEAT, max(opens, member.established and 0 or PROBATION - (now - member.born)))
  elseif round.slots then
    again = allot(entry, round, member)
  else
    calls, cost, again = grant(entry, round, member)
  end
  if calls > 0 then
    member.leases[#member.leases + 1] = {
      number = round.number,
      calls = calls,
      cost = cost,
      arrived = entry.last + late_of(member),
      landed_calls = 0,
      landed_cost = 0,
      returned_calls = 0,
      returned_cost = 0,
      over = 0,
      late_calls = 0,
      late_cost = 0,
    }
  end
  return { now = now, calls = calls, cost = cost, again = again, opens = opens, paused = entry.paused }
end

local function told(epoch, number, now, opens)
  return { number, epoch, now, 0, 0, 0, opens or 0, '', 0, 0, '', '', '' }
end

local function words_of(entry, member)
  local reply = member.reply
  local words = {
    member.number, entry.epoch, reply.now, reply.calls, reply.cost, reply.again, reply.opens, member.refusal,
    reply.paused, 0,
  }
  words[#words + 1] = lower_of(entry, member)
  words[#words + 1] = words_told(entry, member)
  words[#words + 1] = words_allotted(entry, member)
  for _, one in ipairs(entry.members) do
    words[#words + 1] = one.name
  end
  return words
end

local function serve(entry, round, clock, run_id)
  if round.thaw then
    if not entry or entry.run_id ~= run_id then
      return told('', round.number, clock)
    end
    local frozen = thaw(entry, round)
    return told(entry.epoch, round.number, entry.last, frozen), frozen > 0 and entry or nil
  end
  if not entry then
    entry = begin(round, clock, run_id, round.trust and round.epoch == '')
  elseif is_lost(entry, round, run_id) then
    entry = begin(round, clock, run_id, false)
  end
  local member = find(entry.members, 'name', round.incarnation)
  if member and round.number == member.number then
    return words_of(entry, member)
  end
  if member and round.number < member.number then
    return told(entry.epoch, round.number, entry.last)
  end
  if is_forgotten(entry, round, member) then
    local words = told(entry.epoch, round.number, entry.last)
    words[10] = 1
    return words
  end
  local now = time_of(entry, member, round, clock)
  if not member then
    member = {
      name = round.incarnation, born = now, seen = entry.last, number = 0, refusal = '', want_calls = 0, want_cost = 0,
      least = 0, due = 0, turn = 0, leases = {}, established = true,
    }
    for _, one in ipairs(entry.members) do
      member.established = member.established and not is_other(entry, one, round.incarnation)
    end
  end
  member.born = min(member.born, now)
  if now - member.born >= PROBATION then
    member.established = true
  end
  if member.established then
    move_on(entry, now)
  end
  if member.number == 0 then
    entry.members[#entry.members + 1] = member
  end
  local begins = member.number == 0 or not lends_to(entry, member)
  hear(entry, member, round, now)
  member.refusal = refusal_of(entry, round)
  if begins and member.refusal == '' then
    local is_counted = false
    for _, other in ipairs(entry.members) do
      is_counted = is_counted or (counts_cost(other.caps) and is_other(entry, other, member.name))
    end
    if not is_counted then
      unknown_cost(entry, member)
    end
  end
  if member.established then
    forget(entry)
    forget_facts(entry)
  end
  member.number = round.number
  member.reply = decide(entry, member, round, now)
  return words_of(entry, member), entry
end
