"""Quiet period and deadline. Pure: what is due, by the broker's clock as far as it is known."""

from collections.abc import Iterable

from contracts.events import Closed, Expired
from contracts.settings import FlaggingSettings
from worker.flagging.study import Study


class BrokerClock:
    """The broker's time, never ahead of it: append times are the broker's, what passed since is a monotonic reading.

    A wrong wall clock here can therefore close nothing early. After a restart the clock starts at what the last owner
    told the store, or the newest record that is known, so a deadline can come late by what passed since then, never
    early.
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None  # broker's time minus monotonic time, at least

    def saw(self, appended_at: float, monotonic_s: float) -> None:
        """A record with that append time was in hand at that reading."""
        ahead_s = appended_at - monotonic_s
        self._ahead_s = ahead_s if self._ahead_s is None else max(self._ahead_s, ahead_s)

    def now(self, monotonic_s: float) -> float:
        """Epoch seconds; long ago where no record was seen."""
        return 0.0 if self._ahead_s is None else self._ahead_s + monotonic_s


def due(studies: Iterable[Study], broker_now: float, at: float, rules: FlaggingSettings) -> list[Closed | Expired]:
    """Closed for studies that are settled and quiet, Expired for those past their deadline with images unsettled.

    ``at`` is the writer's clock, for people.
    """
    found = (_due(study, broker_now, at, rules) for study in studies if not study.closed)
    return [event for event in found if event is not None]


def _due(study: Study, broker_now: float, at: float, rules: FlaggingSettings) -> Closed | Expired | None:
    waited_s, fence = broker_now - study.fold.last_arrival_at, study.fold.last_image_offset
    if not study.unsettled and waited_s >= rules.quiet_s:
        return Closed(study_instance_uid=study.uid, at=at, after_offset=fence)
    if study.unsettled and not study.fold.expired and _overdue(study, broker_now - rules.deadline_s):
        return Expired(study_instance_uid=study.uid, at=at, after_offset=fence)
    return None


def _overdue(study: Study, before: float) -> bool:
    """Whether an image that arrived by then still waits. The study's own arrival is asked first: it costs nothing."""
    return study.arrived_at <= before and study.waiting_since <= before
