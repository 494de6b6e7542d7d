-- Map of the keys (contracts/names.py RedisKeys), prepended to every script of this folder.
--
--   KEYS[1]  partition:<n>  hash        offset, epoch, inherits, owner, status, target, beat, clock
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

-- "lost": the store was emptied or stands elsewhere than the caller believes. "stale": the caller was replaced.
local function standing(expect)
  local held = redis.call('HMGET', PARTITION, 'owner', 'offset')
  if not held[2] then return 'lost' end
  if held[1] ~= OWNER then return 'stale' end
  if held[2] ~= expect then return 'lost' end
  return 'ok'
end
