-- core/lease/hours.py.

local function remembered(caps)
  local longest = 0
  for _, cap in ipairs(caps) do
    longest = max(longest, at_most(span_of(cap)))
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
  local windows, buckets, longest = {}, {}, 0
  for _, cap in ipairs(caps_of(entry, now)) do
    if cap[4] == 0 then
      windows[cap[1]] = true
    else
      buckets[cap[1] * 2 + cap[3]] = true
    end
    longest = max(longest, at_most(span_of(cap)))
  end
  keep(entry.logs, function(log) return windows[log.per] end)
  keep(entry.levels, function(level) return buckets[level.per * 2 + level.counts] end)
  for _, log in ipairs(entry.logs) do
    expire(log, now)
  end
  keep(entry.members, function(member)
    keep(member.leases, function(lease) return lease.arrived + longest > now end)
    if member.slots and charge_of(member.slots, now) > 0 then
      return true
    end
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
    levels = {},
    members = {},
    queue = {},
    registered = {},
    roster = {},
    facts = {},
    claims = {},
  }
end

local function know(entry, round)
  local known
  for _, log in ipairs(entry.logs) do
    if not known or log.per > known.per then
      known = log
    end
  end
  local is_new = not known and #entry.levels == 0
  local trusted, since = is_new and entry.trusted, is_new and entry.began or entry.last
  local arrived = round.life + round.jitter + (is_new and FAILOVER_LAG or 0)
  for _, cap in ipairs(round.caps) do
    if cap[4] > 0 then
      if not level_of(entry, cap) then
        local level = full(cap, since + at_most(arrived))
        if trusted then
          level.filled, level.at = 0, entry.last
        end
        entry.levels[#entry.levels + 1] = level
      end
    elseif not find(entry.logs, 'per', cap[1]) then
      local log
      if known then
        log = heir(known, cap[1], entry.last)
      else
        log = new_log(cap[1], trusted and 0 or since + at_most(cap[1] + arrived))
      end
      entry.logs[#entry.logs + 1] = log
    end
  end
end

local function counts_cost(caps)
  for _, cap in ipairs(caps) do
    if cap[3] == 1 then
      return true
    end
  end
  return false
end

local function unknown_cost(entry, member)
  for _, other in ipairs(entry.members) do
    local arrived, is_unknown = other.life + other.jitter, not counts_cost(other.caps)
    for _, cap in ipairs(member.caps) do
      if is_unknown and cap[3] == 1 then
        if cap[4] == 0 then
          local log = find(entry.logs, 'per', cap[1])
          log.opens = max(log.opens, other.seen + at_most(cap[1] + arrived))
        elseif other.seen + at_most(span_of(cap) + arrived) > entry.last then
          local level = level_of(entry, cap)
          level.filled = cap[4] * cap[1]
          level.at = max(level.at, other.seen + at_most(arrived))
        end
      end
    end
  end
end

local function all_have_told(entry)
  local known = #entry.registered > 0
  for _, name in ipairs(entry.roster) do
    known = known and place_of(entry.registered, name)
  end
  return known
end

local function unknown_until(entry, round)
  local opens, known = 0, all_have_told(entry)
  for _, log in ipairs(entry.logs) do
    if log.per > LONG and known then
      opens = max(opens, min(log.opens, entry.began + at_most(FAILOVER_LAG + round.life + round.jitter)))
    else
      opens = max(opens, log.opens)
    end
  end
  for _, level in ipairs(entry.levels) do
    if level.at > entry.last then
      opens = max(opens, level.at)
    end
  end
  return opens
end

local function longest_timeout(entry)
  local timeout = 0
  for _, member in ipairs(entry.members) do
    timeout = max(timeout, member.slots and member.slots.timeout or 0)
  end
  return timeout
end

local function opens_at(entry, round)
  local opens = unknown_until(entry, round)
  if round.slots and not entry.trusted then
    local timeout = all_have_told(entry) and 0 or longest_timeout(entry)
    opens = max(opens, entry.began + at_most(FAILOVER_LAG + round.life + timeout))
  end
  if entry.trusted then
    opens = max(opens, entry.began + PROBATION)
  end
  return opens
end
