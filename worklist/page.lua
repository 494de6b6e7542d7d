#!lua flags=no-writes
-- One page of the queue and the state of every partition, read at one instant.
--
-- KEYS[1] queue        sorted set: StudyInstanceUID by rank; equal ranks by the bytes of the UID
-- ARGV[1] study prefix the key of a study is prefix .. StudyInstanceUID; its field `item` is JSON
-- KEYS[2] partitions   how many the topics have; ARGV[3] is what is believed while flagging has not told it
-- ARGV[2] partition prefix: prefix .. n, fields `status`, `beat`, `backlog`, `run` and `evicted`
-- ARGV[4] limit
-- ARGV[5], ARGV[6]     rank and UID of the last place already given; absent: from the front
--
-- Returns {total, first, {uid, rank, item or nil, ...}, {n, status, beat, backlog, run, evicted, ...}, partitions, now, run,
-- evicted}; first is 0-based, what is not known is ''.
-- The study keys follow from the queue, so they cannot be named in KEYS: one Redis, not Redis Cluster.

-- Lua's own < on strings follows the server's locale; Redis orders members by their bytes.
local function comes_after(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return #a > #b
end

local function first_place()
  if not ARGV[5] then return 0 end
  local place = redis.call('ZCOUNT', KEYS[1], '-inf', '(' .. ARGV[5])
  while true do -- among equal ranks: rare, and few
    local here = redis.call('ZRANGE', KEYS[1], place, place, 'WITHSCORES')
    if #here == 0 or tonumber(here[2]) ~= tonumber(ARGV[5]) or comes_after(here[1], ARGV[6]) then return place end
    place = place + 1
  end
end

local count = tonumber(redis.call('GET', KEYS[2]) or ARGV[3])

local function info(section, field)
  return string.match(redis.call('INFO', section), field .. ':(%w+)')
end

local function partitions()
  local found = {}
  for n = 0, count - 1 do
    local state = redis.call('HMGET', ARGV[2] .. n, 'status', 'beat', 'backlog', 'run', 'evicted')
    if state[1] then
      found[#found + 1] = tostring(n)
      for i = 1, 5 do found[#found + 1] = state[i] or '' end
    end
  end
  return found
end

local first = first_place()
local places, at = {}, 0
local range = redis.call('ZRANGE', KEYS[1], first, first + tonumber(ARGV[4]) - 1, 'WITHSCORES')
for i = 1, #range, 2 do
  places[at + 1], places[at + 2] = range[i], range[i + 1]
  places[at + 3] = redis.call('HGET', ARGV[1] .. range[i], 'item')
  at = at + 3
end
local now = redis.call('TIME')
return {redis.call('ZCARD', KEYS[1]), first, places, partitions(), count, now, info('server', 'run_id'),
  info('stats', 'evicted_keys')}
