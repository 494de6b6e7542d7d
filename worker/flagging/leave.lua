-- Takes closed studies out of the view whose time has come. Returns how many.
--   ARGV[3]  how many at most

local due = redis.call('ZRANGEBYSCORE', LEAVING, '-inf', now_s(), 'LIMIT', 0, ARGV[3])
for _, uid in ipairs(due) do
  forget(uid)
  redis.call('ZREM', QUEUE, uid)
  redis.call('ZREM', LEAVING, uid)
end
return #due
