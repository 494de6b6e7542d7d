"""Wall clocks jump by an hour, for one service, several or all; monotonic clocks go on."""

from random import Random

from chaos.faults.processes import every_service
from chaos.faults.trouble import Begin, Span, Trouble, during, each, names
from chaos.scenario import Fault, Rig

HOUR_S = 3600.0
HELD = Span(4.0, 10.0)


def jumped(ahead_s: float) -> Begin:
    """One service or more; back at the end, which is a jump too."""

    def begin(rig: Rig, dice: Random) -> Trouble:
        parts = every_service(rig, dice)
        struck = dice.sample(parts, dice.randint(1, len(parts)))
        for part in struck:
            rig.clock(part, ahead_s)
        return Trouble(f"clock {ahead_s:+.0f} s of {names(struck)}", each(lambda part: rig.clock(part, 0.0), struck))

    return begin


def faults(hold: float) -> tuple[Fault, ...]:
    """The rows."""
    held = HELD.scaled(hold)
    return (
        Fault("clock_ahead", "nothing expires, closes or is outdated by a wrong clock", during(jumped(HOUR_S), held)),
        Fault("clock_behind", "as above", during(jumped(-HOUR_S), held)),
    )
