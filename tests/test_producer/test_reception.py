"""The order of a store and its faults, with peers that fail on command; and the payload store on a real disk."""

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import fsspec
import pytest

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused, PeerTimeout
from contracts.hooks import Happening
from contracts.names import Topics, partition_of
from contracts.ports import Entry
from contracts.reasons import Reason
from contracts.scans import Place
from contracts.settings import ProducerSettings
from producer.intake import Accepted, Door, Received
from producer.kafka_out import KafkaPublisher
from producer.lanes import Lanes
from producer.memory import Acknowledged
from producer.payload_out import PayloadStore
from producer.reception import Limits, Reception
from tests.test_producer.objects import ct, files_below, part10
from tests.test_producer.running import Counting

PARTITIONS = 5


class FailingLog:
    """A log whose records fail as the test says: at the call, in the future, or never answered."""

    partitions = PARTITIONS

    def __init__(self, answer: Callable[[Entry], "Future[Place]"]) -> None:
        self.entries: list[Entry] = []
        self._answer = answer

    def append(self, entry: Entry) -> "Future[Place]":
        """Remembers the entry and answers as told."""
        self.entries.append(entry)
        return self._answer(entry)

    def up(self) -> bool:
        """Not asked here."""
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing to wait for."""


def stored(entry: Entry) -> "Future[Place]":
    """Acknowledged."""
    future: Future[Place] = Future()
    future.set_result(Place(entry.topic, entry.partition, 0))
    return future


def failing(problem: Exception) -> "Future[Place]":
    """Failed later."""
    future: Future[Place] = Future()
    future.set_exception(problem)
    return future


def raising(problem: Exception) -> "Future[Place]":
    """Failed at the call."""
    raise problem


def reception(log: FailingLog, store: PayloadStore | None = None, inline_bytes: int = 10_000) -> Reception:
    """The one intake over that log."""
    publisher = KafkaPublisher(log, Topics("x."), ack_timeout_s=0.2)
    limits = Limits(inline_bytes, 1_000_000)
    lanes = Lanes(ProducerSettings().lane_rules)
    return Reception(lanes, limits, publisher, store, Acknowledged(), Counting(), lambda: 0.0)


def received(payload: bytes) -> Received:
    """As the folder door hands it in."""
    return Received(payload, Door.FOLDER, "folder", 1.0, "")


FAULTS: list[tuple[Callable[[Entry], "Future[Place]"], Reason]] = [
    (lambda _: raising(PeerAway("kafka")), Reason.BROKER_AWAY),
    (lambda _: failing(PeerAway("kafka")), Reason.BROKER_AWAY),
    (lambda _: failing(PeerTimeout("kafka")), Reason.BROKER_AWAY),
    (lambda _: failing(PeerRefused("kafka")), Reason.BROKER_AWAY),
    (lambda _: raising(PeerBusy("kafka")), Reason.BUFFER_FULL),
    (lambda _: failing(PeerBusy("kafka")), Reason.BUFFER_FULL),
    (lambda _: Future(), Reason.BROKER_AWAY),
    (lambda entry: stored(entry) if "scans" in entry.topic else failing(PeerAway("kafka")), Reason.BROKER_AWAY),
    (lambda entry: stored(entry) if "events" in entry.topic else failing(PeerAway("kafka")), Reason.BROKER_AWAY),
]


@pytest.mark.parametrize(("answer", "reason"), FAULTS)
def test_success_needs_both_records_acknowledged(answer: Callable[[Entry], "Future[Place]"], reason: Reason) -> None:
    """Whichever record fails, however it fails, the sender hears of it and nothing is remembered as a duplicate."""
    log = FailingLog(answer)
    intake = reception(log)
    payload = part10(ct())
    outcomes = [intake.take(received(payload)) for _ in range(2)]
    assert [outcome.reason for outcome in outcomes] == [reason, reason]
    assert all(outcome.temporary and not outcome.duplicate for outcome in outcomes)


def test_both_records_go_to_the_studys_partition_under_their_keys() -> None:
    """Scan keyed by study, ``arrived`` by its event key, one partition, no patient data outside values."""
    log, image = FailingLog(stored), ct()
    assert reception(log).take(received(part10(image))).stored
    scan, arrived = log.entries
    study = str(image.StudyInstanceUID)
    assert (scan.topic, arrived.topic) == ("x.scans.routine", "x.study.events")
    assert scan.partition == arrived.partition == partition_of(study, PARTITIONS)
    assert (scan.key, arrived.key.split(b"|")[0]) == (study.encode(), study.encode())


def test_a_fault_is_told_to_whoever_forgets() -> None:
    """A failed publish calls ``lost``, so that a memory-only broker's acknowledgements are forgotten."""
    told: list[bool] = []
    publisher = KafkaPublisher(
        FailingLog(lambda _: failing(PeerAway("kafka"))), Topics(), 1.0, lambda: told.append(True)
    )
    accepted: list[Accepted] = []

    class Catching:
        def publish(self, one: Accepted, payload: bytes) -> None:
            accepted.append(one)
            publisher.publish(one, payload)

    intake = Reception(Lanes(()), Limits(10_000, 10_000), Catching(), None, Acknowledged(), Counting(), lambda: 0.0)
    assert intake.take(received(part10(ct()))).reason is Reason.BROKER_AWAY
    assert told == [True]
    assert len(accepted) == 1


def test_too_large_and_no_store_is_refused_before_anything_is_written() -> None:
    """Neither record of an object that cannot be kept."""
    log = FailingLog(stored)
    assert reception(log, inline_bytes=100).take(received(part10(ct()))).reason is Reason.TOO_LARGE
    assert log.entries == []


def test_a_file_that_may_grow_is_a_wait_not_a_refusal() -> None:
    """Cut short or unreadable is not counted while it may be growing; once it cannot, a cut image is taken."""
    log = FailingLog(stored)
    intake = reception(log)
    hooks = intake._hooks
    assert isinstance(hooks, Counting)
    cut = part10(ct())[:-10]
    assert intake.take(received(cut), may_grow=True).reason is Reason.UNPARSABLE
    assert intake.take(received(b"junk"), may_grow=True).reason is Reason.UNPARSABLE
    assert hooks.labels_of(Happening.REFUSED) == []
    assert intake.take(received(cut)).stored


def test_the_folders_that_lead_to_the_first_payload_reach_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut after the first acknowledgement leaves no folder without its name; those above are synced once."""
    synced: list[str] = []
    sync = os.fsync

    def noting(handle: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", noting)
    store = PayloadStore((tmp_path / "deep" / "er").as_uri())
    first = Path(store.put(b"first").removeprefix("file://"))
    below = [str(folder) for folder in (first.parent, tmp_path / "deep" / "er", tmp_path / "deep", tmp_path)]
    assert synced[1:5] == below
    synced.clear()
    store.put(b"second")
    assert str(tmp_path / "deep" / "er") in synced
    assert str(tmp_path / "deep") not in synced


def test_payload_is_whole_synced_and_named_by_its_content(tmp_path: Path) -> None:
    """Read back it is the same; written again it is one object; no temporary file stays."""
    store = PayloadStore(tmp_path.as_uri() + "/deep/er/")
    claims = {store.put(b"payload" * 1000) for _ in range(2)}
    (claim,) = claims
    with fsspec.open(claim) as file:
        assert file.read() == b"payload" * 1000
    assert len(files_below(tmp_path)) == 1
    assert store.peers() == {"payload": "up"}


def test_payload_goes_to_any_fsspec_store() -> None:
    """Nothing in it knows of disks alone."""
    claim = PayloadStore("memory://bucket/below").put(b"payload")
    with fsspec.open(claim) as file:
        assert file.read() == b"payload"


def test_a_store_that_fails_is_away(tmp_path: Path) -> None:
    """Whatever the store's own complaint, the caller hears PeerAway."""
    (tmp_path / "file").write_text("in the way")
    store = PayloadStore((tmp_path / "file" / "below").as_uri())
    with pytest.raises(PeerError) as caught:
        store.put(b"payload")
    assert caught.value.retriable
    assert store.peers() == {"payload": "away"}
