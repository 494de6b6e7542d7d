-- Takes a partition: from now on only this owner may write it. Returns offset, epoch, inherits, clock, lost, and "1"
-- where the stored offsets were another log's.
--   ARGV[3]  "reset" where the broker's log is shorter than the view: offsets start again, studies stay; else ""
--   ARGV[4]  how many partitions the topics have: readers must not call the view complete with fewer
--   ARGV[5]  the id of the topic, "" where the broker tells none: another one than before is as a reset
-- A missing offset is an emptied or truncated store: the whole log is read again and left-overs are built anew. So is a
-- view of which the store may have dropped a part.

local held = redis.call('HMGET', PARTITION, 'offset', 'log', 'run', 'evicted')
local offset, log = held[1], ARGV[5]
if torn(held[3], held[4]) then offset = false end
local other = offset and held[2] and held[2] ~= '' and log ~= '' and held[2] ~= log
if not offset or other or ARGV[3] == 'reset' then
  local inherits = offset and '1' or '0'
  local last = tonumber(redis.call('HGET', PARTITION, 'epoch') or '0')
  local time = redis.call('TIME') -- in microseconds: what is left of a rebuild of this second is not taken for ours
  local epoch = math.max(tonumber(time[1]) * 1000000 + tonumber(time[2]), last + 1)
  redis.call('HSET', PARTITION, 'offset', '0', 'epoch', string.format('%d', epoch), 'inherits', inherits)
  redis.call('HDEL', PARTITION, 'lost')
  if not offset then redis.call('DEL', OPEN) end
end
redis.call('SET', PREFIX .. 'partitions', ARGV[4])
if log ~= '' then redis.call('HSET', PARTITION, 'log', log) end
redis.call('HSET', PARTITION, 'owner', OWNER, 'status', 'rebuilding', 'beat', now_s(), 'run', RUN, 'evicted', EVICTED)
local taken = redis.call('HMGET', PARTITION, 'offset', 'epoch', 'inherits', 'clock', 'lost')
taken[6] = other and '1' or '0'
return taken
