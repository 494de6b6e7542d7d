"""One record in a worker's hands: what goes wrong inside us neither loses it nor ends the worker."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pydicom
import pytest
from pydicom import Dataset

from contracts.errors import NotAnalysable, PeerAway
from contracts.events import NotAnalysed
from contracts.hooks import Hooks, Silent, Stage
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.scans import Place, Scan
from contracts.settings import ScoringSettings
from tests.test_worker.test_scoring.conftest import headers_of
from worker.flagging.image import Image, outcome_of
from worker.scoring.analysis import Analysis, Work
from worker.scoring.custody import Custody, Fetched
from worker.scoring.decode import Budget
from worker.scoring.holding import Holding
from worker.scoring.settling import Settling, Tools

P = ("scans.routine", 0)
MIB = 1024**2
_SILENT = Silent()


def _done() -> "Future[Place]":
    future: Future[Place] = Future()
    future.set_result(Place("t", 0, 0))
    return future


class Faulty:
    """A log that is acknowledged at once, after so many faults that nobody foresaw."""

    def __init__(self, faults: int = 0) -> None:
        self.faults = faults

    def event(self, event: Any) -> "Future[Place]":
        """See ``Publishing``."""
        del event
        return _done()

    def dead(self, record: Any, reason: Any, detail: str) -> "Future[Place]":
        """See ``Publishing``."""
        del record, reason, detail
        if self.faults:
            self.faults -= 1
            raise ZeroDivisionError
        return _done()

    dead_without_payload = dead


def _custody(*records: Fetched) -> Custody:
    custody = Custody(ScoringSettings())
    custody.assign([P])
    for record in records:
        assert custody.add(record)
    return custody


def _settling(
    custody: Custody, payload_of: Any = None, faults: int = 0, hooks: Hooks = _SILENT, log: Any = None
) -> Settling:
    analysis = Analysis(Budget(64 * MIB, 64 * MIB), threading.Semaphore(2), hooks)
    inference: Any = None  # no image gets that far
    tools = Tools(custody, log or Faulty(faults), inference, analysis, payload_of, 1.0, Holding(100))
    return Settling(tools, hooks, time.monotonic, time.time)


def test_a_record_that_cannot_even_be_put_aside_is_tried_again_until_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that ended over it would leave it unsettled, and its partition uncommitted, for ever."""
    monkeypatch.setattr("worker.scoring.insistence._PAUSE_S", 0.001)
    custody = _custody(Fetched(Place(*P, 0), Lane.ROUTINE, b"1.2", (), b"x", 0.0))
    record = custody.take()
    assert record is not None
    _settling(custody, faults=6).handle(record)
    assert custody.committable() == {P: 1}


class _Away(Faulty):
    """A log that cannot be reached, after so many faults that nobody foresaw."""

    def event(self, event: Any) -> "Future[Place]":
        raise PeerAway("kafka", type(event).__name__)

    def dead(self, record: Any, reason: Any, detail: str) -> "Future[Place]":
        super().dead(record, reason, detail)
        raise PeerAway("kafka")

    dead_without_payload = dead


@pytest.mark.parametrize("faults", [0, 5], ids=["as foreseen", "put aside"])
def test_a_record_whose_peer_is_away_when_the_service_stops_is_handed_back(faults: int) -> None:
    """The drain does not wait for it, its offset is not committed, its room is given back."""
    custody = _custody(Fetched(Place(*P, 0), Lane.ROUTINE, b"1.2", (), b"x", 0.0))
    record = custody.take()
    assert record is not None
    worker = threading.Thread(target=_settling(custody, log=_Away(faults)).handle, args=(record,), daemon=True)
    worker.start()
    assert not custody.idle(0.2)
    custody.close()
    worker.join(60.0)
    assert not worker.is_alive()
    assert custody.idle(0.0)
    assert custody.in_flight == (0, 0)
    assert custody.committable() == {P: 0}


def test_large_payloads_are_in_hand_one_after_the_other_within_the_bytes_of_the_window() -> None:
    """Their records are empty, so the window does not feel them: without a limit 32 of 2 GiB would be in hand."""
    records = []
    for number in range(6):
        told = headers_of(b"", "1.2", f"1.2.{number}", size_bytes=60, claim=f"file:///{number}", digest="d")
        records.append(Fetched(Place(*P, number), Lane.ROUTINE, b"1.2", tuple(told.encode()), b"", 0.0))
    custody = _custody(*records)
    inside, most, lock = 0, 0, threading.Lock()

    def payload_of(scan: Scan) -> bytes:
        nonlocal inside, most
        del scan
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.02)
        with lock:
            inside -= 1
        raise NotAnalysable(Reason.PAYLOAD_MISSING)

    settling = _settling(custody, payload_of)
    taken = [record for _ in records if (record := custody.take())]
    threads = [threading.Thread(target=settling.handle, args=(record,)) for record in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert most == 1
    assert custody.committable() == {P: 6}


def test_the_stage_of_settling_lasts_until_the_log_has_the_events() -> None:
    """A log that does not answer is seen in the stage's gauge, not as a stage of no duration."""
    told = headers_of(b"", "1.2", "1.2.0", claim="file:///0", digest="d")
    custody = _custody(Fetched(Place(*P, 0), Lane.ROUTINE, b"1.2", tuple(told.encode()), b"", 0.0))
    inside: list[Stage] = []

    class Staged(Silent):
        @contextmanager
        def stage(self, stage: Stage, traceparent: str = "") -> Iterator[None]:
            del traceparent
            inside.append(stage)
            try:
                yield
            finally:
                inside.remove(stage)

    def payload_of(scan: Scan) -> bytes:
        raise NotAnalysable(Reason.PAYLOAD_MISSING, str(scan.headers.frames))

    buried: list[list[Stage]] = []

    class Watched(Faulty):
        def dead(self, record: Any, reason: Any, detail: str) -> "Future[Place]":
            buried.append(list(inside))
            return super().dead(record, reason, detail)

    record = custody.take()
    assert record is not None
    _settling(custody, payload_of, hooks=Staged(), log=Watched()).handle(record)
    assert buried == [[Stage.SETTLE]]


def test_one_payload_of_any_size_is_taken_alone() -> None:
    """A limit that it exceeds by itself must not hold it up for ever."""
    holding = Holding(100)
    assert holding.take(1000)
    assert not holding.take(1)
    holding.give(1000)
    assert holding.take(60)
    assert holding.take(40)
    assert not holding.take(1)


def _enhanced(small_head: bytes, spacings: list[float | None]) -> bytes:
    """Three slices in one object, each with that spacing, or none."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.NumberOfFrames = len(spacings)
    data.PixelData = data.PixelData * len(spacings)
    del data.PixelSpacing
    data.PerFrameFunctionalGroupsSequence = [Dataset() for _ in spacings]
    for group, spacing in zip(data.PerFrameFunctionalGroupsSequence, spacings, strict=True):
        if spacing is not None:
            group.PixelMeasuresSequence = [Dataset()]
            group.PixelMeasuresSequence[0].PixelSpacing = [spacing, spacing]
    out = BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize(
    ("spacings", "told"),
    [
        ([None, None, None], [(None, Reason.GEOMETRY_MISSING)]),
        ([9.0, 9.0, 9.0], [(None, Reason.SPACING_OUT_OF_SCOPE)]),
        (
            [None, 9.0, 9.0],
            [(0, Reason.GEOMETRY_MISSING), (1, Reason.SPACING_OUT_OF_SCOPE), (2, Reason.SPACING_OUT_OF_SCOPE)],
        ),
    ],
)
def test_frames_refused_for_one_reason_are_one_refusal(
    small_head: bytes, spacings: list[float | None], told: list[tuple[int | None, Reason]]
) -> None:
    """20,000 frames without geometry are one event that settles the image, not 20,000; two reasons stay told apart."""
    payload = _enhanced(small_head, spacings)
    work = Work(headers_of(payload, "1.2", "1.2.3", frames=len(spacings)), payload, Place(*P, 0), 1.0)
    asked: Any = None  # no frame gets as far as the model
    events = list(Analysis(Budget(64 * MIB, 64 * MIB), threading.Semaphore(1), _SILENT).events(work, asked))
    assert [(event.frame, event.reason) for event in events if isinstance(event, NotAnalysed)] == told
    assert len(events) == len(told)
    image = Image(work.headers.sop_instance_uid, work.headers.pixel_digest, "")
    settled = [image.settle(event.frame, outcome_of(event, n), event.frames) for n, event in enumerate(events)]
    assert all(settled)
    assert (image.settled, image.settlements) == (True, 1)


@pytest.mark.parametrize("place", [["0", "0", "1e308"], ["0", "0", "-1e308"], ["1e308", "0", "0"], ["0", "0", "10001"]])
def test_a_real_slice_that_lies_nowhere_is_told_and_not_scored(small_head: bytes, place: list[str]) -> None:
    """A number is there, and finite, and no place: the model is not asked, the event is one that can be folded."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.ImagePositionPatient = place
    out = BytesIO()
    data.save_as(out, enforce_file_format=True)
    payload = out.getvalue()
    work = Work(headers_of(payload, "1.2", "1.2.3"), payload, Place(*P, 0), 1.0)
    asked: Any = None
    (event,) = Analysis(Budget(64 * MIB, 64 * MIB), threading.Semaphore(1), _SILENT).events(work, asked)
    assert isinstance(event, NotAnalysed)
    assert event.reason is Reason.GEOMETRY_MISSING
