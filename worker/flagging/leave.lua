-- Takes closed studies out of the view whose time has come. Returns how many. Those of a partition that is being
-- rebuilt stay until it is complete: further on in the log they may have been opened again.
--   ARGV[3]  how many at most

local due = redis.call('ZRANGEBYSCORE', LEAVING, '-inf', now_s(), 'LIMIT', 0, ARGV[3])
local left = 0
for _, uid in ipairs(due) do
  local partition = redis.call('HGET', PREFIX .. 'study:' .. uid, 'partition')
  if not partition or redis.call('HGET', PREFIX .. 'partition:' .. partition, 'status') == 'ready' then
    forget(uid)
    redis.call('ZREM', QUEUE, uid)
    redis.call('ZREM', LEAVING, uid)
    left = left + 1
  end
end
return left
