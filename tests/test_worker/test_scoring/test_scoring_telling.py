"""A log that refuses: its partition goes on, and what it refused looks like no normal image."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from contracts.errors import PeerRefused
from contracts.events import NotAnalysed, Scored
from contracts.findings import Label, Measure
from contracts.hooks import Happening
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.scans import Place
from contracts.settings import ScoringSettings
from worker.scoring.analysis import Event
from worker.scoring.custody import Custody, Fetched
from worker.scoring.insistence import Insistence
from worker.scoring.settling import Settling, Tools
from worker.scoring.telling import Telling

P = ("scans.routine", 0)
ENDS_S = 30.0  # generous: it takes milliseconds
SCORED = Scored(
    study_instance_uid="1.2",
    series_instance_uid="1.3",
    sop_instance_uid="1.4",
    pixel_digest="d" * 64,
    traceparent="t" * 1000,
    at=1.0,
    frame=3,
    frames=7,
    model="m",
    model_version="1",
    measures={Label.ANY: Measure(probability=0.9, threshold=0.5)},
    position_mm=1.0,
    thickness_mm=5.0,
)


class _Refusing:
    """A log that takes what ``takes`` says, and keeps it."""

    def __init__(self, takes: Callable[[Any], bool]) -> None:
        self.takes = takes
        self.kept: list[Any] = []
        self.asked = 0

    def event(self, event: Event) -> "Future[Place]":
        """See ``Publishing``."""
        return self._append(event)

    def dead(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """See ``Publishing``."""
        del record, detail
        return self._append(("whole", reason))

    def dead_without_payload(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """See ``Publishing``."""
        del record, detail
        return self._append(("without payload", reason))

    def _append(self, told: Any) -> "Future[Place]":
        self.asked += 1
        future: Future[Place] = Future()
        if self.takes(told):
            self.kept.append(told)
            future.set_result(Place("t", 0, 0))
        else:
            future.set_exception(PeerRefused("kafka", "too large"))
        return future


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.scoring.insistence._PAUSE_S", 0.001)


def in_work(**changes: Any) -> tuple[Custody, Fetched]:
    """A record that a worker has."""
    custody = Custody(ScoringSettings())
    custody.assign([P])
    values: dict[str, Any] = {"key": b"1.2", "headers": (), "value": b"x"} | changes
    custody.add(Fetched(Place(*P, 0), Lane.ROUTINE, appended_s=0.0, **values))
    record = custody.take()
    assert record is not None
    return custody, record


def settled(custody: Custody, record: Fetched, log: _Refusing, hooks: Any) -> None:
    """An unreadable record on its way through settling."""
    unasked: Any = None
    tools = Tools(custody, log, unasked, unasked, unasked, 1.0, unasked)
    ended(Settling(tools, hooks, lambda: 0.0, lambda: 1.0).handle, record)


def ended(step: Callable[..., object], *given: Any) -> None:
    """Whoever asks for ever does not end."""
    worker = threading.Thread(target=step, args=given, daemon=True)
    worker.start()
    worker.join(ENDS_S)
    assert not worker.is_alive()


def test_a_dead_letter_that_is_refused_in_both_forms_holds_up_nobody(told: Any) -> None:
    """The event says that the image is not analysed; that there is no letter is a fault that is told."""
    custody, record = in_work()
    log = _Refusing(lambda told: isinstance(told, NotAnalysed))
    settled(custody, record, log, told)
    assert custody.committable() == {P: 1}
    assert [event.reason for event in log.kept] == [Reason.RECORD_UNREADABLE]
    assert told.counts[Happening.FAULT.value] == 1
    assert told.counts[Happening.DEAD_LETTER.value] == 0


def test_a_letter_that_is_too_large_with_its_payload_is_written_without_it(told: Any) -> None:
    """No fault: the letter's place leads to the record."""
    custody, record = in_work()
    settled(
        custody, record, log := _Refusing(lambda told: told[0] != "whole" if isinstance(told, tuple) else True), told
    )
    assert ("without payload", Reason.RECORD_UNREADABLE) in log.kept
    assert told.counts[Happening.FAULT.value] == 0
    assert custody.committable() == {P: 1}


def test_an_event_that_is_refused_is_told_smaller_and_the_image_is_not_analysed(told: Any) -> None:
    """A score that cannot be told is none: the frame is told without one, with its identity."""
    custody, record = in_work()
    log = _Refusing(lambda event: isinstance(event, NotAnalysed))
    telling = Telling(log, Insistence(custody), told)
    ended(telling.acknowledge, record, SCORED, telling.append(SCORED))
    (event,) = log.kept
    assert isinstance(event, NotAnalysed)
    assert (event.image, event.frame, event.frames) == (SCORED.image, 3, 7)
    assert (event.reason, event.traceparent) == (Reason.RECORD_UNREADABLE, "")
    assert told.counts[Happening.FAULT.value] == 1


def test_headers_of_any_length_do_not_make_an_event_that_nobody_takes(told: Any) -> None:
    """What is longer than any UID is no identity: the study is told without it."""
    custody, record = in_work(headers=(("sop_instance_uid", b"1" * 2_000_000), ("pixel_digest", b"d")))
    log = _Refusing(lambda told: isinstance(told, tuple) or len(told.sop_instance_uid) < 1_000_000)
    settled(custody, record, log, told)
    assert custody.committable() == {P: 1}
    event = next(told for told in log.kept if isinstance(told, NotAnalysed))
    assert (event.study_instance_uid, event.sop_instance_uid, event.pixel_digest) == ("1.2", "", "d")


def test_a_log_that_refuses_everything_is_waited_for_and_gets_the_score_in_the_end(told: Any) -> None:
    """No commit passes an image of which nothing was told; a right taken away and given back costs no score."""
    custody, record = in_work()
    log = _Refusing(lambda _: False)
    telling = Telling(log, Insistence(custody), told)
    events: list[Event] = []

    def tell() -> None:
        events.append(telling.acknowledge(record, SCORED, telling.append(SCORED)))

    worker = threading.Thread(target=tell, daemon=True)
    worker.start()
    while log.asked < 20:
        assert worker.is_alive()
        worker.join(0.01)
    log.takes = lambda event: isinstance(event, Scored)
    worker.join(60.0)
    assert events == [SCORED]
    assert custody.committable() == {P: 0}
    assert told.counts[Happening.FAULT.value] == 1
