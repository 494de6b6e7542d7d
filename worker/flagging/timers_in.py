"""Timers: they only append events; the fold decides what an event does. Whoever owns the partition runs them."""

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future

from contracts import events
from contracts.errors import PeerError
from contracts.events import Closed, Expired, NotAnalysed
from contracts.names import Lane
from contracts.ports import Entry, Log
from contracts.scans import Place
from contracts.settings import FlaggingSettings
from worker.flagging.stored import NEVER
from worker.flagging.study import Study
from worker.flagging.timers import BrokerClock, due, gone

ASK_AGAIN_S = 5.0  # an event that was not read back by then is appended again: the fold takes it once


class Timers:
    """The timers of one partition."""

    def __init__(self, log: Log, topic: str, partition: int, rules: FlaggingSettings) -> None:
        self._log = log
        self._topic = topic
        self._partition = partition
        self._rules = rules
        self._clock = BrokerClock()
        self._asked: dict[bytes, tuple[int, float]] = {}  # event key → fence and when it was asked (monotonic)

    def saw(self, appended_at: float) -> None:
        """A record with that append time is in hand."""
        self._clock.saw(appended_at, time.monotonic())

    def broker_now(self) -> float:
        """The broker's time (epoch seconds) as far as it is known, never ahead of it; long ago where it is not."""
        return self._clock.now(time.monotonic())

    def lag_s(self, appended_at: float) -> float:
        """How long ago that was, by the broker's clock as far as it is known."""
        return max(0.0, self.broker_now() - appended_at)

    def tick(self, studies: Collection[Study], lost: Mapping[Lane, float]) -> None:
        """Appends what is due. A broker that is away is asked again at the next tick. ``lost`` as in ``gone``."""
        now_s = time.monotonic()
        self._asked = {key: asked for key, asked in self._asked.items() if now_s - asked[1] < ASK_AGAIN_S}
        broker_now, at = self._clock.now(now_s), time.time()
        self._ask(due(studies, broker_now, at, self._rules), now_s)
        self._ask(gone(studies, lost, broker_now, at, self._rules), now_s)

    def _ask(self, wanted: Iterable[Closed | Expired | NotAnalysed], now_s: float) -> None:
        for event in wanted:
            fence = NEVER if isinstance(event, NotAnalysed) else event.after_offset
            asked = self._asked.get(event.key)
            if asked is None or asked[0] != fence:
                self._asked[event.key] = (fence, now_s)
                self._append(Entry(self._topic, self._partition, event.key, events.encode(event)))

    def _append(self, entry: Entry) -> None:
        try:
            self._log.append(entry).add_done_callback(_heard)
        except PeerError:
            self._asked.pop(entry.key, None)


def _heard(future: "Future[Place]") -> None:
    """Nothing to do: an append that failed is not read back, and asked again."""
    if not future.cancelled():
        future.exception()
