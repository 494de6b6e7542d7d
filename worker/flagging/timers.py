"""Quiet period, deadline and lost records. Pure: what is due, by the broker's clock as far as it is known."""

from collections.abc import Iterable, Iterator, Mapping

from contracts.events import Closed, Expired, NotAnalysed
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import FlaggingSettings
from worker.flagging.image import Image
from worker.flagging.study import Study

# Scan and arrival of one image are appended together, but to two topics: the scan may have been a moment later, and
# still be there. An image for which that was wrong is scored and revised; one within the margin is told once its
# deadline has passed.
LOST_MARGIN_S = 2.0


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


def gone(
    studies: Iterable[Study], lost: Mapping[Lane, float], broker_now: float, at: float, rules: FlaggingSettings
) -> list[NotAnalysed]:
    """RECORD_LOST for images that wait and of which every copy left its topic before it was scored.

    ``lost``: lane → scans appended before that (epoch seconds) are gone.
    """
    if not lost:
        return []
    latest = max(lost.values())
    waiting = (study for study in studies if study.unsettled and study.fold.implied_at is not None)
    late = broker_now - rules.deadline_s
    return [
        _gone(study, image, at)
        for study in waiting
        if (study.fold.implied_at or 0.0) < latest
        for image in study.images.values()
        if not image.settled and all(_is_gone(lost.get(lane), copy, late) for lane, copy in _copies(image))
    ]


def _copies(image: Image) -> Iterator[tuple[Lane, float]]:
    """Its scans, as its arrivals tell of them; one that is not known to have arrived is in hand."""
    yield from image.copies.items() or ((Lane.ROUTINE, float("inf")),)


def _is_gone(before: float | None, copy_at: float, late: float) -> bool:
    return before is not None and copy_at < before - (0.0 if copy_at <= late else LOST_MARGIN_S)


def _gone(study: Study, image: Image, at: float) -> NotAnalysed:
    return NotAnalysed(
        study_instance_uid=study.uid,
        at=at,
        series_instance_uid=image.series_instance_uid,
        sop_instance_uid=image.sop_instance_uid,
        pixel_digest=image.pixel_digest,
        frames=image.frame_count,
        reason=Reason.RECORD_LOST,
    )
