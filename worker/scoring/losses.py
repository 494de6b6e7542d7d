"""Records that left a topic before they were fetched: never skipped silently (design decision 4).

1. found: nothing beyond the loss is committed any more
2. told: ``Lost`` is appended to ``study.events``, as often as it takes
3. acknowledged: only now may the commit pass the loss

A worker that dies in between leaves its commit before the loss, so the next owner finds it again.
"""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from contracts.errors import PeerError
from contracts.events import Lost
from contracts.hooks import Happening, Hooks
from contracts.scans import Place
from worker.scoring.custody import Custody

_AGAIN_S = 1.0  # between attempts to tell

Tell = Callable[[Lost], "Future[Place]"]


@dataclass(slots=True)
class _Untold:
    lost: Lost
    ticket: int
    asked_s: float
    future: "Future[Place]"


class Losses:
    """Of one consumer. Belongs to its thread; ``now_s`` is monotonic."""

    def __init__(self, custody: Custody, tell: Tell, hooks: Hooks) -> None:
        self._custody = custody
        self._tell = tell
        self._hooks = hooks
        self._untold: list[_Untold] = []

    def found(self, lost: Lost, now_s: float) -> None:
        """Of a partition that is ours, and not known yet."""
        ticket = self._custody.lose((lost.topic, lost.partition), lost.first, lost.upto)
        if ticket is not None:
            self._hooks.happened(Happening.RECORDS_LOST, float(lost.upto - lost.first), topic=lost.topic)
            self._untold.append(_Untold(lost, ticket, now_s, self._asked(lost)))

    def turn(self, now_s: float) -> bool:
        """Looks after what was appended; whether everything has been told."""
        for one in list(self._untold):
            if not one.future.done():
                continue
            if one.future.exception() is None:
                self._custody.told((one.lost.topic, one.lost.partition), one.lost.first, one.ticket)
                self._untold.remove(one)
            elif now_s - one.asked_s >= _AGAIN_S:
                one.asked_s, one.future = now_s, self._asked(one.lost)
        return not self._untold

    def _asked(self, lost: Lost) -> "Future[Place]":
        try:
            return self._tell(lost)
        except PeerError as problem:
            failed: Future[Place] = Future()
            failed.set_exception(problem)
            return failed
