"""Notices a consumer that has something to read, may read it, and reads nothing."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, TypeVar

WATCHDOG_S = 30.0  # far above a rebalance (11 s on Tansu) and a fetch of the largest record

Partition = TypeVar("Partition", bound=Hashable)


class Watchdog:
    """Pure but for the clock, which is given (monotonic seconds).

    A partition is stuck when its backlog was above zero at every look for ``patience_s``, and it delivered nothing in
    that time. A partition that is paused, not assigned or read to its end is left out of the backlog, and starts anew.
    """

    def __init__(self, patience_s: float, clock: Callable[[], float]) -> None:
        self._patience_s = patience_s
        self._clock = clock
        self._since_s: dict[Hashable, float] = {}

    def delivered(self, partitions: Iterable[Hashable]) -> None:
        """These partitions gave records just now."""
        for partition in partitions:
            self._since_s.pop(partition, None)

    def stuck(self, backlog: Mapping[Partition, int]) -> frozenset[Partition]:
        """The partitions that wait too long, given what is known to wait in each partition that may be read."""
        now_s = self._clock()
        behind = [partition for partition, records in backlog.items() if records > 0]
        self._since_s = {partition: self._since_s.get(partition, now_s) for partition in behind}
        return frozenset(partition for partition in behind if now_s - self._since_s[partition] >= self._patience_s)


class Stuck:
    """The watchdog beside a loop's consumer; a new consumer starts with a new patience.

    ``backlog_of``: what is known to wait in each partition that a consumer may read.
    """

    def __init__(
        self, backlog_of: Callable[[Any], Mapping[Any, int]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._backlog_of, self._clock = backlog_of, clock
        self._watchdog = Watchdog(WATCHDOG_S, clock)

    def __call__(self, consumer: Any, delivered: Iterable[Any]) -> bool:
        """Whether a partition that has records, and may be read, gave nothing for long. Asked after each poll."""
        self._watchdog.delivered(delivered)
        if not self._watchdog.stuck(self._backlog_of(consumer)):
            return False
        self._watchdog = Watchdog(WATCHDOG_S, self._clock)
        return True
