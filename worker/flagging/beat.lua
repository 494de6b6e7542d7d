-- The owner says that it lives, and how far it is. Returns "ok", "lost", "stale" or "torn".
--   ARGV[3]  the offset it believes to be stored   ARGV[4]  status   ARGV[5]  target
--   ARGV[6]  the broker's time as far as the owner knows it: the next owner's timers go on from there
--   ARGV[7]  how far analysis is behind, JSON contracts.worklist.Backlog

local held = standing(ARGV[3])
if held ~= 'ok' then return held end
redis.call('HSET', PARTITION, 'status', ARGV[4], 'target', ARGV[5], 'clock', ARGV[6], 'backlog', ARGV[7],
  'beat', now_s(), 'run', RUN, 'evicted', EVICTED)
return 'ok'
