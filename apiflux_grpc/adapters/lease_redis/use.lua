-- core/lease/use.py.

local function use_of(entry, mine)
  local use, now = {}, entry.last
  for _, cap in ipairs(mine.caps) do
    if not (cap[4] > 0 and level_of(entry, cap) or cap[4] == 0 and find(entry.logs, 'per', cap[1])) then
      return use
    end
  end
  for place = 1, #mine.refused > 0 and #mine.caps or 0 do
    local cap = mine.caps[place]
    local counts = cap[3]
    if cap[4] > 0 then
      use[place] = { up(level_of(entry, cap).filled, cap[1]) + select(counts + 1, leased_since(entry, now)), 0, 0, 0 }
    else
      local log, refused, lent, ending = find(entry.logs, 'per', cap[1]), 0, 0, 0
      for _, member in ipairs(entry.members) do
        if member ~= mine then
          for i, other in ipairs(member.caps) do
            if alike(other, cap) and now - member.seen < cap[1] then
              refused = refused + (member.refused[i] or 0)
            end
          end
          for _, lease in ipairs(member.leases) do
            if lease.arrived > now - kept(log) then
              lent = lent + (counts == 0 and lease.calls or lease.cost)
            end
          end
        end
      end
      local amounts, soon = counts == 0 and log.n or log.c, now + mine.jitter - cap[1]
      for i = 1, #log.at do
        if log.at[i] <= soon then
          ending = ending + amounts[i]
        end
      end
      use[place] = { (counts == 0 and log.calls or log.cost), ending, lent, refused }
    end
  end
  return use
end
