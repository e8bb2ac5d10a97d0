-- core/lease/thaw.py. Returns 0 if it wasn't frozen.

local function thaw(entry, round)
  local frozen = max(0, unknown_until(entry, round) - entry.last)
  if frozen == 0 then
    return 0
  end
  for _, log in ipairs(entry.logs) do
    log.opens = 0
  end
  local caps = caps_of(entry, entry.last)
  for _, level in ipairs(entry.levels) do
    if level.at > entry.last then
      local depth = 0
      for _, cap in ipairs(caps) do
        if cap[4] > 0 and cap[1] == level.per and cap[3] == level.counts then
          depth = cap[4]
        end
      end
      level.filled = max(0, level.filled - depth * level.per)
      level.at = entry.last
    end
  end
  return frozen
end
