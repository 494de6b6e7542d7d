"""Redis dies, forgets, hangs, is far away."""

from collections.abc import Callable
from random import Random

from chaos.answers import OK
from chaos.faults import redis_call
from chaos.faults.links import cut, far, mute, on_the_way
from chaos.faults.processes import BETWEEN, frozen, killed
from chaos.faults.trouble import BLINK, Shown, Span, Trouble, back, during, repeated
from chaos.scenario import Fault, Rig
from launch.stack.part import Part

LONG = Span(3.0, 8.0)  # beyond redis.timeout_s (2 s), so that every client notices


def the_redis(rig: Rig, _: Random) -> list[Part]:
    """There is one."""
    return [rig.redis]


def emptied(rig: Rig, _: Random) -> Trouble:
    """FLUSHALL under running services."""
    redis_call.emptied(rig.redis)
    return Trouble("FLUSHALL", lambda: None)


def reborn(damage: Callable[[Rig, Random], str]) -> Callable[[Rig, Random], Trouble]:
    """Kill -9, then its files are damaged, then it starts from what is left."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        rig.redis.kill()
        return Trouble(f"kill -9 of Redis, {damage(rig, dice)}", lambda: back([rig.redis]))

    return begin


def _cut_short(rig: Rig, dice: Random) -> str:
    return redis_call.cut_short(rig.redis, dice)


def _removed(rig: Rig, _: Random) -> str:
    redis_call.removed(rig.redis)
    return "its files removed"


def never_ok(rig: Rig, held_s: float) -> None:
    """Reads the worklist when the trouble begins and before it ends. Raises Shown where an answer says ok.

    Each question is asked and answered while the store hangs: whoever says ok now has not asked it. No answer is none.
    """
    for at_s in (0.0, held_s):
        rig.pause(at_s)
        if (status := rig.status()) == OK:
            raise Shown(f"a read says {status} while the store hangs", "I7 silently normal")


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows."""
    long = LONG.scaled(max(hold, 0.6))
    at_once = Span(0.0, 0.0)
    return (
        Fault("kill_redis", "the view resumes where it stood", during(killed(the_redis), BLINK.scaled(hold), long)),
        Fault(
            "redis_frozen", "no read says ok while the store hangs", during(frozen(the_redis), long, meanwhile=never_ok)
        ),
        Fault("redis_emptied", "the log brings the view back", repeated(during(emptied, at_once), (1, 2), BETWEEN)),
        Fault("redis_truncated", "what the file lost is read again from the log", during(reborn(_cut_short), BLINK)),
        Fault("redis_new_disk", "an empty store after a crash is the same case", during(reborn(_removed), BLINK)),
        Fault("redis_link_cut", "scoring goes on without the view", during(on_the_way("redis", cut), long)),
        Fault("redis_link_slow", "two seconds each way are no loss", during(on_the_way("redis", far), long)),
        Fault(
            "redis_link_one_way",
            "a script that was run and never answered runs once in effect",
            during(on_the_way("redis", mute), long),
        ),
    )
