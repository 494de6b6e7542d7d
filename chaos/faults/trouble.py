"""What every act is made of: somebody is struck, the trouble is held for a while, it is healed. Pure but for the rig.

An act must heal whatever happens to it: a run that is interrupted leaves a rig that works.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from chaos.scenario import Act, Rig
from contracts.errors import TriageError
from launch.stack.part import Part, StartFailed

Ended = TypeVar("Ended")


class Shown(TriageError):
    """A fault showed what must not be, beside what the ledger sees: a service that does not drain, for one."""

    def __init__(self, what: str, invariant: str = "I6 recovery") -> None:
        super().__init__(what)
        self.invariant = invariant


@dataclass(frozen=True, slots=True)
class Span:
    """How long a trouble is held, in seconds: drawn between the two."""

    low_s: float
    high_s: float

    def draw(self, dice: Random) -> float:
        """One length."""
        return dice.uniform(self.low_s, self.high_s)

    def scaled(self, hold: float) -> "Span":
        """So many times as long."""
        return Span(self.low_s * hold, self.high_s * hold)


BLINK = Span(0.3, 3.0)  # back before anybody's session has timed out
BACK_LIMIT_S = 180.0  # three brokers at once on a busy machine; what matters is what happens after
ABSENCE = Span(7.0, 12.0)  # beyond the six seconds of a group member's session, so that its partitions move


@dataclass(frozen=True, slots=True)
class Trouble:
    """What was struck, in words, and what ends it."""

    told: str
    end: Callable[[], None]


Begin = Callable[[Rig, Random], Trouble]
Choose = Callable[[Rig, Random], Sequence[Part]]
Meanwhile = Callable[[Rig, float], None]  # what is done for so many seconds while the trouble is there


def waited(rig: Rig, held_s: float) -> None:
    """Nothing."""
    rig.pause(held_s)


def during(begin: Begin, *spans: Span, meanwhile: Meanwhile = waited) -> Act:
    """The act that begins the trouble, holds it for one of the spans and ends it."""

    def act(rig: Rig, dice: Random) -> str:
        trouble = begin(rig, dice)
        held_s = dice.choice(spans).draw(dice)
        try:
            meanwhile(rig, held_s)
        finally:
            trouble.end()
        return f"{trouble.told}, for {held_s:.1f} s"

    return act


def repeated(act: Act, times: tuple[int, int], between: Span) -> Act:
    """The same act several times with pauses between, so that the second strikes what the first has left."""

    def acts(rig: Rig, dice: Random) -> str:
        told = [act(rig, dice)]
        for _ in range(dice.randint(*times) - 1):
            rig.pause(between.draw(dice))
            told.append(act(rig, dice))
        return "; ".join(told)

    return acts


def each(end: Callable[[Ended], None], struck: Sequence[Ended]) -> Callable[[], None]:
    """Ends the trouble of each of them."""

    def ends() -> None:
        for one in struck:
            end(one)

    return ends


def names(parts: Sequence[Part]) -> str:
    """``worker-1, worker-2``: the folders, because both are called ``worker``."""
    return ", ".join(part.folder.name for part in parts)


def back(parts: Sequence[Part]) -> None:
    """Starts those that are down, all together, and returns when all answer: a lone broker of three never would."""
    for part in parts:
        if not part.alive():
            part.launch()
    try:
        for part in parts:
            part.wait_until_answering(BACK_LIMIT_S)
    except StartFailed as problem:
        raise Shown(f"did not come back: {problem}") from problem
