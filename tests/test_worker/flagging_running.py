"""Flagging against a real broker and a real store, in a thread or as a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from kafka import TopicPartition

from contracts import events
from contracts.errors import PeerError
from contracts.events import StudyEvent
from contracts.hooks import Happening, Silent
from contracts.names import RedisKeys, Topics, partition_of
from contracts.ports import Entry, Service
from contracts.settings import FlaggingSettings, KafkaSettings, ProbeSettings, RedisSettings, Settings
from contracts.worklist import HistoryEntry, StoredImage, WorklistItem
from launch.clients.kafka_call import KafkaLog, make_consumer
from launch.wiring.flagging import build

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 90.0  # Tansu needs up to 11 s to give a group's partitions to a new member, a busy machine five times as long


def wait_until(true: Callable[[], object], what: str, wait_s: float = WAIT_S) -> None:
    """Polls; the assertion names what did not come true."""
    until = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < until, f"not in {wait_s} s: {what}"
        time.sleep(0.05)


class Counting(Silent):
    """Hooks that remember what happened."""

    def __init__(self) -> None:
        self.told: list[tuple[Happening, float, dict[str, str]]] = []

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Remembers."""
        del traceparent
        self.told.append((happening, value, labels))

    def count(self, happening: Happening) -> float:
        """The sum of what was counted."""
        return sum(value for name, value, _ in list(self.told) if name is happening)


@dataclass
class Site:
    """One broker's topics and one store's keys, below a prefix, with what is needed to write and to look."""

    settings: Settings
    log: KafkaLog
    client: Any
    keys: RedisKeys
    hooks: Counting = field(default_factory=Counting)
    service: Service | None = None  # the one that runs in a thread

    def append(self, *some: StudyEvent) -> int:
        """Puts events on the topic, each durable before the next; the last one's offset."""
        offset = -1
        for event in some:
            offset = self.append_raw(event.study_instance_uid, event.key, events.encode(event))
        return offset

    def append_raw(self, study: str, key: bytes, value: bytes) -> int:
        """Puts any record on the topic."""
        partition = partition_of(study, self.log.partitions)
        entry = Entry(self.topics.events, partition, key, value)
        until = time.monotonic() + WAIT_S
        while True:
            try:
                return self.log.append(entry).result(WAIT_S).offset
            except PeerError:
                assert time.monotonic() < until, "the broker does not take the event"
                time.sleep(0.2)

    @property
    def topics(self) -> Topics:
        """Names of the topics."""
        return Topics(self.settings.kafka.topic_prefix)

    def item(self, study: str) -> WorklistItem | None:
        """The row readers see; None where there is none, or the store is away."""
        with contextlib.suppress(redis.RedisError):
            stored = self.client.hget(self.keys.study(study), "item")
            return WorklistItem.model_validate_json(stored) if stored else None
        return None

    def state(self, study: str) -> tuple[str, bool] | None:
        """State and whether it is closed."""
        item = self.item(study)
        return (item.state.value, item.closed) if item else None

    def history(self, study: str) -> list[HistoryEntry]:
        """The history as readers see it."""
        stored = self.client.lrange(self.keys.history(study), 0, -1)
        return [HistoryEntry.model_validate_json(value) for value in stored]

    def images(self, study: str) -> list[StoredImage]:
        """The images as readers see them."""
        stored = self.client.hvals(self.keys.images(study))
        return sorted((StoredImage.model_validate_json(value) for value in stored), key=str)

    def view(self, study: str) -> tuple[object, ...]:
        """All that readers can see of a study."""
        return (self.item(study), self.images(study), self.history(study), self.client.zscore(self.keys.queue, study))

    def told(self) -> list[str]:
        """The live changes, oldest first."""
        return [fields[b"event"].decode() for _, fields in self.client.xrange(self.keys.changes)]

    def ready(self) -> bool:
        """Whether every partition's view is complete."""
        with contextlib.suppress(redis.RedisError):
            names = [self.keys.partition(number) for number in range(self.settings.kafka.partitions)]
            return all(self.client.hget(name, "status") == b"ready" for name in names)
        return False

    def assigned(self) -> float:
        """How many partitions the service in the thread said it has."""
        said = [value for name, value, _ in list(self.hooks.told) if name is Happening.PARTITIONS_ASSIGNED]
        return said[-1] if said else 0.0

    def audit(self) -> list[dict[str, Any]]:
        """Every record of the audit topic."""
        reader = make_consumer(self.settings.kafka, group=None)
        reader.assign([TopicPartition(self.topics.audit, n) for n in range(self.settings.kafka.partitions)])
        reader.seek_to_beginning()
        found: list[dict[str, Any]] = []
        for _ in range(6):
            for records in reader.poll(timeout_ms=250).values():
                found += [json.loads(record.value) | {"key": record.key.decode()} for record in records]
        reader.close(autocommit=False)
        return found

    @contextmanager
    def running(self) -> Iterator[threading.Thread]:
        """Flagging in a thread, as ``launch`` runs it; stopped and drained at the end."""
        (service,) = build(self.settings, self.hooks)
        self.service = service
        stop, failure = threading.Event(), []

        def run() -> None:
            try:
                service.run(stop)
            except BaseException as problem:
                failure.append(problem)
                raise

        thread = threading.Thread(target=run, name="flagging", daemon=True)
        thread.start()
        try:
            yield thread
        finally:
            stop.set()
            thread.join(WAIT_S)
            assert not thread.is_alive()
            assert not failure

    def process(self, folder: Path) -> "subprocess.Popen[bytes]":
        """``triage worker --role flagging``: to be killed by its caller."""
        config = folder / "triage.toml"
        config.write_text(_toml(self.settings), encoding="utf-8")
        command = [sys.executable, "-m", "launch.cli", "worker", "--role", "flagging", "--config", str(config)]
        log = (folder / "worker.log").open("ab")
        return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | {"PYTHONPATH": str(ROOT)})


def _toml(settings: Settings) -> str:
    """The sections that the tests set, as a file. JSON's strings, numbers and booleans are TOML's as well."""
    lines = []
    for name in ("kafka", "redis", "flagging", "probes"):
        section = getattr(settings, name)
        values = section.model_dump(mode="json", include=section.model_fields_set)
        if name == "redis":
            values["url"] = section.url.get_secret_value()
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


@contextmanager
def site(bootstrap: str, redis_url: str, prefix: str, *, cooperative: bool = False, **rules: Any) -> Iterator[Site]:
    """Topics and keys of a test's own, two partitions."""
    settings = Settings(
        kafka=KafkaSettings(
            bootstrap=bootstrap, topic_prefix=prefix, partitions=2, replication=1, min_insync=1, cooperative=cooperative
        ),
        redis=RedisSettings(url=redis_url, key_prefix=f"{prefix}triage:", timeout_s=1.0),
        flagging=FlaggingSettings(**{"quiet_s": 600.0, "deadline_s": 600.0} | rules),
        probes=ProbeSettings(worker_port=0),
    )
    hooks = Counting()
    log = KafkaLog(settings.kafka, hooks)
    client: Any = redis.Redis.from_url(redis_url, protocol=2, socket_timeout=2.0)
    try:
        assert log.wait_up(WAIT_S), "the broker answers"
        yield Site(settings, log, client, RedisKeys(settings.redis.key_prefix), hooks)
    finally:
        log.close(5.0)
        client.close()


def uids(partitions: int = 2, each: int = 1) -> Sequence[str]:
    """StudyInstanceUIDs in every partition."""
    found: dict[int, list[str]] = {number: [] for number in range(partitions)}
    for n in range(1000):
        uid = f"1.2.826.0.7.{n}"
        found[partition_of(uid, partitions)].append(uid)
    return [uid for number in range(partitions) for uid in found[number][:each]]
