-- Map of the keys (contracts/names.py RedisKeys), prepended to every script of this folder.
--
--   KEYS[1]  partition:<n>  hash        offset, epoch, inherits, owner, status, target, beat, clock, backlog, lost, log,
--                                       run, evicted
--   KEYS[2]  queue          sorted set  StudyInstanceUID by rank
--   KEYS[3]  changes        stream      live changes: event, uid, item, offset
--   KEYS[4]  open:<n>       set         studies of the partition that are not closed
--   KEYS[5]  leaving        sorted set  closed studies by the time they leave
--   ARGV[1]  prefix                     of the keys of one study: study:<uid>, images:, frames:, history:
--   ARGV[2]  owner                      the token of whoever took the partition last
--
-- Scripts run one at a time, so what one of them checks still holds when it writes.

local PARTITION, QUEUE, CHANGES, OPEN, LEAVING = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local PREFIX, OWNER = ARGV[1], ARGV[2]
local PARTS = {'study:', 'images:', 'frames:', 'history:'}

local function now_s()
  local time = redis.call('TIME')
  return time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
end

local function forget(uid)
  for _, part in ipairs(PARTS) do
    redis.call('DEL', PREFIX .. part .. uid)
  end
end

local function info(section, field)
  return string.match(redis.call('INFO', section), field .. ':(%w+)')
end

-- Which life of which server this is, and how much it has dropped by itself for want of memory.
local RUN, EVICTED = info('server', 'run_id'), info('stats', 'evicted_keys')

-- Whether the server may have dropped a part of the view since its owner saw it last: nobody knows which.
local function torn(run, evicted)
  if not run or (run == RUN and evicted == EVICTED) then return false end
  if run == RUN or EVICTED ~= '0' then return true end
  return info('memory', 'maxmemory') ~= '0' and info('memory', 'maxmemory_policy') ~= 'noeviction'
end

-- "lost": the store was emptied or stands elsewhere than the caller believes. "stale": the caller was replaced. "torn":
-- see above.
local function standing(expect)
  local held = redis.call('HMGET', PARTITION, 'owner', 'offset', 'run', 'evicted')
  if not held[2] then return 'lost' end
  if held[1] ~= OWNER then return 'stale' end
  if held[2] ~= expect then return 'lost' end
  if torn(held[3], held[4]) then return 'torn' end
  return 'ok'
end
