-- core/lease/hours.py.

local function remembered(caps)
  local longest = 0
  for _, cap in ipairs(caps) do
    longest = max(longest, at_most(cap[1]))
  end
  return longest + LAPSE
end

local function time_of(entry, member, round, clock)
  local now = clock + entry.offset
  if now < entry.last then
    entry.offset = entry.offset + entry.last - now
    now = entry.last
  end
  if member and round.epoch == entry.epoch and round.floor >= 0 then
    local off = OFF + floor(2 * (round.floor - round.told) / DRIFT)
    local held = max(entry.last, round.floor - (entry.paused - round.paused))
    if now - held > off then
      entry.paused = entry.paused + now - held
      entry.offset = entry.offset - (now - held)
      now = held
    end
  end
  return now
end

local function is_forgotten(entry, round, member)
  return round.epoch == entry.epoch
    and round.number > 1
    and not member
    and round.told < entry.last - remembered(round.caps)
end

local function is_lost(entry, round, run_id)
  if entry.run_id ~= run_id then
    return true
  end
  if round.epoch ~= entry.epoch then
    return entry.trusted and round.epoch ~= ''
  end
  local member = find(entry.members, 'name', round.incarnation)
  if not member then
    return round.number > 1 and not is_forgotten(entry, round, member)
  end
  return round.number - 1 > member.number
end

local function forget(entry)
  local now = entry.last
  local held = {}
  for _, cap in ipairs(caps_of(entry, now)) do
    held[cap[1]] = true
  end
  keep(entry.logs, function(log) return held[log.per] end)
  local longest = 0
  for _, log in ipairs(entry.logs) do
    expire(log, now)
    longest = max(longest, kept(log))
  end
  keep(entry.members, function(member)
    keep(member.leases, function(lease) return lease.arrived + longest > now end)
    if #member.leases > 0 or gone_at(member) + max(longest, remembered(member.caps)) + LAPSE > now then
      return true
    end
    drop(entry.queue, member.name)
    return false
  end)
end

local function begin(round, clock, run_id, trusted)
  return {
    layout = LAYOUT,
    epoch = run_id .. '/' .. round.incarnation .. '/' .. string.format('%.0f', round.number),
    run_id = run_id,
    last = clock,
    offset = 0,
    paused = 0,
    trusted = trusted,
    began = clock,
    logs = {},
    members = {},
    queue = {},
    registered = {},
    roster = {},
  }
end

local function know(entry, round)
  local pers = {}
  for _, cap in ipairs(round.caps) do
    pers[#pers + 1] = cap[1]
  end
  table.sort(pers)
  for _, per in ipairs(pers) do
    if not find(entry.logs, 'per', per) then
      local longest
      for _, log in ipairs(entry.logs) do
        if not longest or log.per > longest.per then
          longest = log
        end
      end
      local log
      if longest then
        log = heir(longest, per, entry.last)
      else
        local whole = at_most(per + round.life + round.jitter + FAILOVER_LAG)
        log = new_log(per, entry.trusted and 0 or entry.began + whole)
      end
      entry.logs[#entry.logs + 1] = log
    end
  end
end

local function opens_at(entry, round)
  local opens = 0
  local known = #entry.registered > 0
  for _, name in ipairs(entry.roster) do
    known = known and place_of(entry.registered, name)
  end
  for _, log in ipairs(entry.logs) do
    if log.per > LONG and known then
      opens = max(opens, min(log.opens, entry.began + at_most(FAILOVER_LAG + round.life + round.jitter)))
    else
      opens = max(opens, log.opens)
    end
  end
  if entry.trusted then
    opens = max(opens, entry.began + PROBATION)
  end
  return opens
end
