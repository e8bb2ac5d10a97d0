-- core/lease/facts.py. Facts are lists of { name, until, amount }, claims of { name, until, whose }.

local function is_later(one, other)
  if one[2] ~= other[2] then
    return one[2] > other[2]
  end
  if one[3] ~= other[3] then
    return one[3] > other[3]
  end
  return one[1] > other[1]
end

local function learn(entry, round)
  local facts, claims, mine = entry.facts, entry.claims, round.incarnation
  for _, told in ipairs(round.facts) do
    local fact = { told[1], entry.last + told[3], told[2] }
    local known, place = find(facts, 1, told[1])
    if not known or is_later(fact, known) then
      facts[place or #facts + 1] = fact
    end
  end
  while #facts > MOST_FACTS do
    local first = 1
    for i = 2, #facts do
      if is_later(facts[first], facts[i]) then
        first = i
      end
    end
    table.remove(facts, first)
  end
  keep(claims, function(claim) return claim[3] ~= mine or place_of(round.claims, claim[1]) end)
  for _, name in ipairs(round.claims) do
    local claim, place = find(claims, 1, name)
    if (not claim or claim[3] == mine or claim[2] <= entry.last) and (claim or #claims < MOST_FACTS) then
      claims[place or #claims + 1] = { name, entry.last + CLAIM, mine }
    end
  end
end

local function fill_levels(entry, round)
  if #round.facts == 0 or #entry.levels == 0 then
    return
  end
  for _, cap in ipairs(caps_of(entry, entry.last)) do
    if cap[4] > 0 then
      local known, name = fact_of(entry, 'others', cap)
      local ends = max(known and known[2] or 0, entry.last)
      for _, told in ipairs(round.facts) do
        if told[1] == name then
          local more = (entry.last + told[3] - ends) * cap[2]
          local level = level_of(entry, cap)
          level.filled = max(level.filled, min(level.filled + more, cap[4] * cap[1]))
        end
      end
    end
  end
end

local function forget_facts(entry)
  local function lives(one) return one[2] > entry.last end
  keep(entry.facts, lives)
  keep(entry.claims, lives)
end

-- As JSON, facts as { name, amount, left }, and what all have of limits; '' without any.
local function words_told(entry, member)
  local now = member.reply.now
  local facts, claims, use = {}, {}, use_of(entry, member)
  for _, fact in ipairs(entry.facts) do
    if fact[2] > now then
      facts[#facts + 1] = { fact[1], fact[3], fact[2] - now }
    end
  end
  for _, claim in ipairs(entry.claims) do
    if claim[3] == member.name then
      claims[#claims + 1] = claim[1]
    end
  end
  return (#facts > 0 or #claims > 0 or #use > 0) and cjson.encode({ facts, claims, use }) or ''
end
