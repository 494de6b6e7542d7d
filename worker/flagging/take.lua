-- Takes a partition: from now on only this owner may write it. Returns offset, epoch, inherits, clock.
--   ARGV[3]  "reset" where the broker's log is shorter than the view: offsets start again, studies stay; else ""
--   ARGV[4]  how many partitions the topics have: readers must not call the view complete with fewer
-- A missing offset is an emptied or truncated store: the whole log is read again and left-overs are built anew.

local offset = redis.call('HGET', PARTITION, 'offset')
if not offset or ARGV[3] == 'reset' then
  local inherits = offset and '1' or '0'
  local last = tonumber(redis.call('HGET', PARTITION, 'epoch') or '0')
  local epoch = math.max(tonumber(redis.call('TIME')[1]), last + 1)
  redis.call('HSET', PARTITION, 'offset', '0', 'epoch', string.format('%d', epoch), 'inherits', inherits)
  if not offset then redis.call('DEL', OPEN) end
end
redis.call('SET', PREFIX .. 'partitions', ARGV[4])
redis.call('HSET', PARTITION, 'owner', OWNER, 'status', 'rebuilding', 'beat', now_s())
return redis.call('HMGET', PARTITION, 'offset', 'epoch', 'inherits', 'clock')
