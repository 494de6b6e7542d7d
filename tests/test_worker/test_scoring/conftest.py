"""What the tests of scoring share: scans, hooks that keep what they are told, a running service."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pydicom
import pytest
from kafka import TopicPartition
from pydicom.data import get_testdata_file

from contracts.events import AnyEvent, Lost, NotAnalysed, Scored, decode_any
from contracts.hooks import Happening, Silent
from contracts.names import Lane, partition_of
from contracts.ports import Entry, Log
from contracts.scans import ScanHeaders
from contracts.settings import KafkaSettings, ScoringSettings, Settings, TritonSettings
from launch.clients.kafka_call import KafkaLog, make_consumer, topics_of
from launch.wiring.scoring import build
from worker.scoring.part10 import meta_of

PARTITIONS = 3
WAIT_S = 300.0  # for what comes at once, as a rule: no test measures speed
DRAIN_S = 60.0  # scoring.drain_s is 20


class Told(Silent):
    """Hooks that keep what they were told."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.last: dict[str, float] = {}

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Counts by happening, and by happening and its labels."""
        del traceparent
        for name in (happening.value, ":".join((happening.value, *labels.values()))):
            self.counts[name] += 1
            self.last[name] = value


def file_of(name: str) -> bytes:
    """The bytes of a file of pydicom's test set."""
    path = get_testdata_file(name)
    assert isinstance(path, str), f"{name} is not there"
    return Path(path).read_bytes()


def headers_of(payload: bytes, study: str, sop: str, lane: Lane = Lane.ROUTINE, **changes: Any) -> ScanHeaders:
    """Scan headers as the producer writes them, for made-up UIDs."""
    transfer_syntax, start = meta_of(payload)
    values: dict[str, Any] = {
        "study_instance_uid": study,
        "series_instance_uid": f"{study}.1",
        "sop_instance_uid": sop,
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": transfer_syntax,
        "digest": sha256(payload[start:]).hexdigest(),
        "pixel_digest": sha256(payload[start:] + sop.encode()).hexdigest(),
        "source": "TEST",
        "received_at": 1.0,
        "traceparent": "",
        "size_bytes": len(payload),
        "lane": lane,
    }
    return ScanHeaders(**values | changes)


class Bench:
    """Topics of its own on a broker, scans put in, events and dead letters read out."""

    headers = staticmethod(headers_of)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = topics_of(settings.kafka)
        self.log: Log = KafkaLog(settings.kafka, Silent())
        deadline = time.monotonic() + WAIT_S
        while not self.log.up() and time.monotonic() < deadline:
            time.sleep(0.05)

    def send(self, headers: ScanHeaders, payload: bytes) -> None:
        """One scan, acknowledged when this returns."""
        key = headers.study_instance_uid.encode()
        self.put(self.topics.lane(headers.lane), key, payload, headers.encode())

    def put(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        """One record, acknowledged when this returns."""
        partition = partition_of(key.decode("ascii", "replace"), PARTITIONS)
        self.log.append(Entry(topic, partition, key, value, headers)).result(WAIT_S)

    def records(self, topic: str, enough: Callable[[list[Any]], bool], timeout_s: float = WAIT_S) -> list[Any]:
        """What is in a topic, read until it is enough; fails when it does not come."""
        consumer = make_consumer(self.settings.kafka, group=None)
        found: list[Any] = []
        deadline = time.monotonic() + timeout_s
        try:
            consumer.subscribe(topics=[topic])
            while not enough(found) and time.monotonic() < deadline:
                for batch in consumer.poll(timeout_ms=100).values():
                    found += batch
        finally:
            consumer.close(autocommit=False)
        assert enough(found), f"only {len(found)} records in {topic}"
        return found

    def events(self, count: int, timeout_s: float = WAIT_S) -> list[AnyEvent]:
        """The first ``count`` events, or more where more have come."""
        records = self.records(self.topics.events, lambda found: len(found) >= count, timeout_s)
        return [decode_any(record.value) for record in records]

    def settled(self, images: int, timeout_s: float = WAIT_S) -> dict[str, list[Scored | NotAnalysed]]:
        """Events by SOP Instance UID, read until that many images have one."""

        def by_image(records: list[Any]) -> dict[str, list[Scored | NotAnalysed]]:
            found: dict[str, list[Scored | NotAnalysed]] = {}
            for event in (decode_any(record.value) for record in records):
                if isinstance(event, Lost):
                    continue
                assert isinstance(event, Scored | NotAnalysed)
                found.setdefault(event.sop_instance_uid, []).append(event)
            return found

        records = self.records(self.topics.events, lambda found: len(by_image(found)) >= images, timeout_s)
        return by_image(records)

    def committed(self) -> dict[tuple[str, int], int]:
        """The scoring group's commits."""
        consumer = make_consumer(self.settings.kafka, group=f"{self.settings.kafka.topic_prefix}triage-scoring")
        try:
            return {
                (tp.topic, tp.partition): offset
                for topic in (self.topics.stat, self.topics.routine)
                for tp in (TopicPartition(topic, number) for number in range(PARTITIONS))
                if (offset := consumer.committed(tp)) is not None
            }
        finally:
            consumer.close(autocommit=False)

    def close(self) -> None:
        """Ends the producer."""
        self.log.close(1.0)


def settings_of(
    bootstrap: str,
    prefix: str,
    triton_grpc: str,
    *,
    cooperative: bool = False,
    kafka: Mapping[str, Any] = MappingProxyType({}),
    **scoring: Any,
) -> Settings:
    """Settings of one test on shared servers; ``kafka``: more of the broker's."""
    return Settings(
        kafka=KafkaSettings(
            bootstrap=bootstrap,
            topic_prefix=prefix,
            partitions=PARTITIONS,
            replication=1,
            min_insync=1,
            cooperative=cooperative,
            **kafka,
        ),
        triton=TritonSettings(url=triton_grpc, request_timeout_s=5.0, breaker_open_s=0.3),
        # The faulty repository has no such model; the tests of it ask for it.
        scoring=ScoringSettings(**({"brain_mask": False} | scoring)),
    )


@contextmanager
def scoring(settings: Settings, hooks: Told) -> Iterator[Any]:
    """The service as ``launch`` builds it, running; drained when left."""
    (service,) = build(settings, hooks)
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        stop.set()
        thread.join(DRAIN_S)
        assert not thread.is_alive(), "the service did not drain"


@pytest.fixture(scope="session")
def sample() -> Callable[[str], bytes]:
    """Reads a file of pydicom's test set."""
    return file_of


@pytest.fixture
def bench_of(topic_prefix: str) -> Iterator[Callable[..., Bench]]:
    """Makes a bench on a broker with topics of its own."""
    made: list[Bench] = []

    def make(bootstrap: str, triton_grpc: str, **changes: Any) -> Bench:
        made.append(Bench(settings_of(bootstrap, topic_prefix, triton_grpc, **changes)))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture(scope="session")
def running() -> Any:
    """Runs the service while a ``with`` block lasts, and drains it."""
    return scoring


@pytest.fixture
def told() -> Told:
    """Hooks that keep what they are told."""
    return Told()


@pytest.fixture(scope="session")
def head() -> bytes:
    """A real axial head CT slice, JPEG 2000, whose PixelRepresentation contradicts its codestream."""
    return file_of("J2K_pixelrep_mismatch.dcm")


@pytest.fixture(scope="session")
def small_head(head: bytes) -> bytes:
    """The same slice at a quarter of the samples, uncompressed: cheap to send and to decode."""
    data = pydicom.dcmread(BytesIO(head))
    pixels = data.pixel_array[::2, ::2].copy()
    data.decompress(decoding_plugin="pylibjpeg")
    data.Rows, data.Columns = pixels.shape
    data.PixelSpacing = [0.862, 0.862]
    data.PixelData = pixels.tobytes()
    out = BytesIO()
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.fixture(scope="session")
def faulty_triton(triton_of: Callable[[Path], Any]) -> Any:
    """A Triton whose model has the real one's tensors and fails on demand."""
    return triton_of(Path(__file__).parent / "faulty_repository")


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A port of the loopback on which nothing listens."""

    def find() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    return find
