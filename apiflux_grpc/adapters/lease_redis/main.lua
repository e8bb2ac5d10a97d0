-- One round: KEYS[1] is the budget's entry, ARGV[1] the round.
--
-- Nothing is written but once, at the end: a server that refuses the write has done nothing.

local blob = redis.call('GET', KEYS[1])
local before = blob and cmsgpack.unpack(blob) or nil
if before and before.layout ~= LAYOUT then
  return redis.error_reply('APIFLUX_LAYOUT ' .. tostring(before.layout))
end
local time = redis.call('TIME')
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
local words, after = serve(before, cjson.decode(ARGV[1]), time[1] * 1000000 + time[2], run_id)
if after then
  redis.call('SET', KEYS[1], cmsgpack.pack(after))
end
return words
