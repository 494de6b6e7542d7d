-- Writes a batch: studies, ranks, history, live changes and the source offset, all or nothing.
--   ARGV[3]  JSON: expect, upto, epoch, lost, keep_s, changes_max, studies [{uid, offset, rank, item, fold, images, frames,
--            history, leave_at, fresh}], changes [{event, uid, item, offset}]; numbers that must not round are strings
-- Returns "ok", "lost", "stale" or "torn". A batch that is already in is "ok": a retry after a lost answer changes nothing.

local REBUILD_S = 3600 -- longer than any rebuild takes
local batch = cjson.decode(ARGV[3])
local held = standing(batch.expect)
if held == 'lost' and redis.call('HGET', PARTITION, 'owner') == OWNER
  and redis.call('HGET', PARTITION, 'offset') == batch.upto then return 'ok' end
if held ~= 'ok' then return held end

-- The guard on each study: never over a later offset of the same log.
for _, study in ipairs(batch.studies) do
  local stored = redis.call('HMGET', PREFIX .. 'study:' .. study.uid, 'offset', 'epoch')
  if stored[1] and not study.fresh and stored[2] == batch.epoch and tonumber(stored[1]) > tonumber(study.offset) then
    return 'stale'
  end
end

-- A rebuild meets studies whose time is long over, and may meet more of them further on in the log.
local function expiry(study)
  return string.format('%d', math.max(tonumber(study.expire_at), math.floor(tonumber(now_s())) + REBUILD_S))
end

-- Settlements are counted here: the fold says how many are new, and what stands there is added. So an effect that gets
-- in twice, by whatever fault, shows as 2. In a JSON string a quote is escaped, so the name is found nowhere else.
local function counted(key, field, image)
  local stored = redis.call('HGET', key, field)
  local before = stored and tonumber(string.match(stored, '"settlements":(%d+)')) or 0
  local added = tonumber(string.match(image, '"settlements":(%d+)'))
  return (string.gsub(image, '"settlements":%d+', string.format('"settlements":%d', before + added), 1))
end

local function write(study)
  local uid = study.uid
  if study.fresh then forget(uid) end
  local key = PREFIX .. 'study:' .. uid
  redis.call('HSET', key, 'item', study.item, 'fold', study.fold, 'offset', study.offset,
    'epoch', batch.epoch, 'partition', batch.number)
  local images = PREFIX .. 'images:' .. uid
  for field, image in pairs(study.images) do redis.call('HSET', images, field, counted(images, field, image)) end
  for field, frame in pairs(study.frames) do redis.call('HSET', PREFIX .. 'frames:' .. uid, field, frame) end
  for _, entry in ipairs(study.history) do redis.call('RPUSH', PREFIX .. 'history:' .. uid, entry) end
  redis.call('ZADD', QUEUE, study.rank, uid)
  if study.leave_at ~= '' then
    redis.call('SREM', OPEN, uid)
    redis.call('ZADD', LEAVING, study.leave_at, uid)
    for _, part in ipairs(PARTS) do redis.call('EXPIREAT', PREFIX .. part .. uid, expiry(study)) end
  else
    redis.call('SADD', OPEN, uid)
    redis.call('ZREM', LEAVING, uid)
    for _, part in ipairs(PARTS) do redis.call('PERSIST', PREFIX .. part .. uid) end
  end
end

-- Comes first: a full store refuses it, and so the whole batch. Once a script has deleted anything, it may write on.
redis.call('HSET', PARTITION, 'run', RUN, 'evicted', EVICTED)
for _, study in ipairs(batch.studies) do write(study) end
for _, change in ipairs(batch.changes) do
  redis.call('XADD', CHANGES, 'MAXLEN', '~', batch.changes_max, '*',
    'event', change.event, 'uid', change.uid, 'item', change.item, 'offset', change.offset)
end
if #batch.changes > 0 then -- they name patients, as the studies do, and leave with them
  local keep_s = tonumber(batch.keep_s)
  redis.call('XTRIM', CHANGES, 'MINID', string.format('%d', (math.floor(tonumber(now_s())) - keep_s) * 1000))
  redis.call('EXPIRE', CHANGES, keep_s)
end
if batch.lost ~= '' then redis.call('HSET', PARTITION, 'lost', batch.lost) end
redis.call('HSET', PARTITION, 'offset', batch.upto)
return 'ok'
