"""Trying again while a peer is away: for as long as the record is ours, and no image is blamed for it."""

import random
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from itertools import count
from typing import TypeVar

from contracts.errors import PeerError, PeerTimeout
from contracts.scans import Place
from worker.scoring.custody import Custody, Dropped, Fetched

_PAUSE_S, _PAUSE_MAX_S = 0.1, 2.0  # doubled each time, with jitter, so that workers do not come back in step
_ACK_S = 60.0  # the log fails its futures well before; this only bounds a fault of its own

Result = TypeVar("Result")


class Insistence:
    """Steps of a record's way that are repeated until they work."""

    def __init__(self, custody: Custody) -> None:
        self._custody = custody

    def until_done(self, record: Fetched, step: Callable[[], Result]) -> Result:
        """The step's result. Raises Dropped when the record is no longer ours or the service drains."""
        for attempt in count():
            try:
                return step()
            except PeerError:
                self.pause(record, attempt)
        raise AssertionError("count() has no end")

    def pause(self, record: Fetched, attempt: int) -> None:
        """Waits before attempt ``attempt + 2``. Raises Dropped as ``until_done`` does."""
        pause_s = random.uniform(0.5, 1.0) * min(_PAUSE_MAX_S, _PAUSE_S * 2 ** min(attempt, 10))  # noqa: S311 (jitter)
        # While draining, a peer that is away is not waited for: the next owner of the partition will be.
        if self._custody.gone(record, pause_s):
            raise Dropped


def acknowledged(future: "Future[Place]") -> Place:
    """Waits until the log has the record. Raises PeerError."""
    try:
        return future.result(_ACK_S)
    except NoAnswer as problem:
        raise PeerTimeout("kafka", "no acknowledgement") from problem
