"""What settling tells the log: events and dead letters, until they are acknowledged.

A log that refuses a record would refuse it for ever, and its partition would stand still. Refused again and again
  an event: a smaller one says that the image is not analysed. Until one of the two is taken, nothing is settled
  a dead letter: there is none. The image's events were taken before, so it is not analysed all the same
Either is a fault that somebody has to look at.
"""

from collections.abc import Callable
from concurrent.futures import Future
from itertools import count
from typing import Protocol

from contracts.errors import PeerError, PeerRefused
from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.scans import Place
from worker.scoring.analysis import Event
from worker.scoring.custody import Fetched
from worker.scoring.insistence import Insistence, acknowledged
from worker.scoring.unreadable import smallest

_REFUSALS = 5  # of one event or letter, within some two seconds, before less is said: it can be an operator's slip


class Publishing(Protocol):
    """What is needed of the log: ``kafka_out.Publisher``."""

    def event(self, event: Event) -> "Future[Place]":
        """Appends an event."""

    def dead(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """Appends a dead letter."""

    def dead_without_payload(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """Appends one that only says where the record lies."""


class Telling:
    """Safe to use from many threads. What waits raises Dropped as ``Insistence`` does."""

    def __init__(self, publishing: Publishing, insist: Insistence, hooks: Hooks) -> None:
        self._publishing = publishing
        self._insist = insist
        self._hooks = hooks

    def append(self, event: Event) -> "Future[Place]":
        """Raises nothing: the future tells."""
        try:
            return self._publishing.event(event)
        except PeerError as problem:
            failed: Future[Place] = Future()
            failed.set_exception(problem)
            return failed

    def acknowledge(self, record: Fetched, event: Event, first: "Future[Place]") -> Event:
        """A record whose future failed may still be in the log; its key makes a second one replace it."""
        try:
            acknowledged(first)
        except PeerError:
            self._insist.pause(record, 0)
            return self._insist.until_done(record, self._until_told(event))
        return event

    def _until_told(self, event: Event) -> Callable[[], Event]:
        """Tells the event, or after some refusals a smaller one where that is taken; returns the one that was told.

        Both are offered each time: where everything is refused for a while, the event itself goes first afterwards.
        """
        refusals = count(1)

        def tell() -> Event:
            try:
                acknowledged(self._publishing.event(event))
            except PeerRefused as problem:
                self._refused(next(refusals), problem)
                less = smallest(event)
                acknowledged(self._publishing.event(less))
                return less
            return event

        return tell

    def _refused(self, times: int, problem: PeerRefused) -> None:
        """Raises what was refused less often than _REFUSALS."""
        if times < _REFUSALS:
            raise problem
        if times == _REFUSALS:
            self._hooks.happened(Happening.FAULT, where="scoring_refused")

    def bury(self, record: Fetched, reason: Reason, detail: str) -> None:
        """The record is in the dead letters when this returns, or these have refused both forms of it too often."""
        refusals = count(1)

        def letter() -> None:
            try:
                self._write(record, reason, detail)
            except PeerRefused as problem:
                self._refused(next(refusals), problem)
            else:
                self._hooks.happened(Happening.DEAD_LETTER, reason=reason.value)

        self._insist.until_done(record, letter)

    def _write(self, record: Fetched, reason: Reason, detail: str) -> None:
        try:
            acknowledged(self._publishing.dead(record, reason, detail))
        except PeerRefused:
            acknowledged(self._publishing.dead_without_payload(record, reason, detail))
