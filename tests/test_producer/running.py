"""A running producer against a real broker, and what it wrote there."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from kafka import TopicPartition

from contracts import events
from contracts.events import Arrived
from contracts.hooks import Happening, Silent
from contracts.names import Topics
from contracts.ports import Service
from contracts.scans import Scan, ScanHeaders
from contracts.settings import KafkaSettings, LimitSettings, PayloadSettings, ProducerSettings, Settings
from launch.clients.kafka_call import make_consumer
from launch.wiring.producer import build

ACK_S = 60.0  # a busy machine's Kafka answers late; no test waits that long for one that is away
START_S = 150.0  # topics are made first
END_S = ACK_S + 30.0  # a drain may wait for answers
PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"


class Counting(Silent):
    """Hooks that remember what happened."""

    def __init__(self) -> None:
        self.told: list[tuple[Happening, float, dict[str, str]]] = []

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Remembers."""
        del traceparent
        self.told.append((happening, value, labels))

    def labels_of(self, happening: Happening) -> list[dict[str, str]]:
        """Labels of each time it happened."""
        return [labels for name, _, labels in list(self.told) if name is happening]


@dataclass
class Running:
    """A producer as ``launch`` runs it."""

    settings: Settings
    service: Service
    hooks: Counting
    stop: threading.Event
    thread: threading.Thread
    failure: list[BaseException] = field(default_factory=list)

    @property
    def dicom(self) -> tuple[str, int]:
        """Where the DICOM door listens."""
        host, _, port = self.service.addresses()["dicom"].rpartition(":")
        return host, int(port)

    @property
    def stow(self) -> str:
        """Where the STOW door listens."""
        return self.service.addresses()["stow"]

    def door(self, name: str) -> Any:
        """A door itself, for what no caller needs to know."""
        return next(door for door in self.service._doors if door.name == name)  # type: ignore[attr-defined]  # as said

    def end(self) -> None:
        """As SIGTERM does."""
        self.stop.set()
        self.thread.join(END_S)
        assert not self.thread.is_alive()


def settings_of(
    bootstrap: str,
    prefix: str,
    kafka: dict[str, Any],
    payload: dict[str, Any],
    limits: dict[str, Any] | None = None,
    **doors: Any,
) -> Settings:
    """Settings for one broker and quick tests."""
    broker = {"partitions": 3, "replication": 1, "min_insync": 1, "ack_timeout_s": ACK_S}
    return Settings(
        kafka=KafkaSettings(bootstrap=bootstrap, topic_prefix=prefix, **broker | kafka),
        payload=PayloadSettings(**payload),
        limits=LimitSettings(**limits or {}),
        producer=ProducerSettings(**{"port": 0, "stow_port": 0} | doors),
    )


@contextmanager
def running(settings: Settings, *, broker_away: bool = False) -> Iterator[Running]:
    """Starts it, waits until its doors and (unless it is away) the way to the broker are open, stops it."""
    hooks = Counting()
    (service,) = build(settings, hooks)
    stop = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            service.run(stop)
        except BaseException as problem:  # noqa: BLE001 - shown by the test that started it
            failure.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(lambda: service.ready() or bool(failure), START_S)
    if not broker_away:
        wait_until(lambda: service.peers()["kafka"] == "up" or bool(failure), START_S)
    producer = Running(settings, service, hooks, stop, thread, failure)
    try:
        yield producer
    finally:
        producer.end()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Fails where the condition does not hold in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@dataclass
class Written:
    """What lies on the topics."""

    scans: list[Scan]
    arrived: list[Arrived]
    keys: list[bytes]
    raw_headers: list[bytes]
    partitions: list[int]

    def of(self, sop_instance_uid: str) -> Scan:
        """The one scan of an instance."""
        (scan,) = [scan for scan in self.scans if scan.headers.sop_instance_uid == sop_instance_uid]
        return scan


def written(settings: Settings, scans: int, arrived: int | None = None, patience_s: float = 20.0) -> Written:
    """Reads scan and event topics from their beginning until that many records are there, and a moment longer."""
    topics = Topics(settings.kafka.topic_prefix)
    consumer = make_consumer(settings.kafka, group=None, auto_offset_reset="earliest")
    try:
        names = (topics.stat, topics.routine, topics.events)
        consumer.assign([TopicPartition(name, n) for name in names for n in range(settings.kafka.partitions)])
        consumer.seek_to_beginning()
        records = _records(consumer, topics, scans, scans if arrived is None else arrived, patience_s)
    finally:
        consumer.close()
    found = [record for record in records if record.topic != topics.events]
    told = [events.decode(record.value) for record in records if record.topic == topics.events]
    return Written(
        [Scan(ScanHeaders.decode(record.headers), record.value) for record in found],
        [event for event in told if isinstance(event, Arrived)],
        [record.key for record in records],
        [b"".join(value for _, value in record.headers) for record in records],
        [record.partition for record in records],
    )


def _records(consumer: Any, topics: Topics, scans: int, arrived: int, patience_s: float) -> list[Any]:
    end, records = time.monotonic() + patience_s, []
    complete_at: float | None = None
    while time.monotonic() < (complete_at or end):
        for batch in consumer.poll(timeout_ms=200).values():
            records.extend(batch)
        of_events = sum(record.topic == topics.events for record in records)
        if complete_at is None and len(records) - of_events >= scans and of_events >= arrived:
            complete_at = time.monotonic() + 0.4  # one too many would come now
    return records
