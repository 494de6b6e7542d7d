"""One kafka-python producer and everything it has not answered yet.

A line is never mended: whoever owns it drops it and opens another (docs/decisions/0003-kafka-python.md, faults 2 and
3). Every record given to a line is settled exactly once: by the broker's answer, by its deadline, or by the drop.
"""

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaProducer, errors
from kafka.producer.future import RecordMetadata

from contracts.errors import PeerAway, PeerError, PeerTimeout
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.connect_call import (
    BOOTSTRAP_MS,
    PEER,
    REQUEST_TIMEOUT_MS,
    client_config,
    mapped,
    opened,
    peer_error,
)

RECORD_OVERHEAD_BYTES = 64 * 1024  # batch and record framing, key and headers, above max_record_bytes
DELIVERY_TIMEOUT_FACTOR = 3  # kafka-python never expires a batch itself: that wedges it (fault 2)
DELIVERY_TIMEOUT_MIN_MS = 60_000
MAX_BLOCK_MS = 100  # the longest that an append is held, and only if the client forgot a topic
SEND_BUFFER_BYTES = 4 * 1024**2  # 512 kB acknowledged in 3.7 ms instead of 8.7 ms


@dataclass(eq=False, slots=True)
class Pending:
    """A record on its way. ``entry`` is let go once the client holds its bytes."""

    size_bytes: int
    deadline_s: float
    entry: Entry | None
    future: "Future[Place]" = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # on its way: nobody can take it back

    def done(self, place: Place) -> None:
        """The broker has it. Too late after a deadline: the caller was told already."""
        with suppress(InvalidStateError):
            self.future.set_result(place)

    def fail(self, problem: PeerError) -> None:
        """It may be in the log all the same."""
        with suppress(InvalidStateError):
            self.future.set_exception(problem)


@dataclass(frozen=True, slots=True)
class Owner:
    """What a line tells its owner: bytes that left the buffer, a sign of life, a fault that needs a new line."""

    released: Callable[[int], None]
    answered: Callable[[], None]
    broken: Callable[["Line"], None]


def producer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Acknowledged by every in-sync replica, idempotent, and quick."""
    delivery_ms = max(DELIVERY_TIMEOUT_MIN_MS, int(settings.ack_timeout_s * 1000 * DELIVERY_TIMEOUT_FACTOR))
    return client_config(settings) | {
        "client_id": "triage-log",
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 0,
        "request_timeout_ms": REQUEST_TIMEOUT_MS,
        "delivery_timeout_ms": delivery_ms,
        "max_block_ms": MAX_BLOCK_MS,
        "max_request_size": settings.max_record_bytes + RECORD_OVERHEAD_BYTES,
        "send_buffer_bytes": SEND_BUFFER_BYTES,
    }


class Line:
    """Opens in the constructor, which blocks for up to BOOTSTRAP_MS. Raises PeerError."""

    def __init__(self, settings: KafkaSettings, owner: Owner) -> None:
        self._producer = opened(KafkaProducer, producer_config(settings))
        self._owner = owner
        self._lock = threading.Lock()
        self._pending: dict[int, Pending] = {}  # by id, oldest first: all wait equally long
        self._dropped = False

    def partitions(self, topic: str) -> int:
        """The partition count of an existing topic, waited for up to BOOTSTRAP_MS. Raises PeerError."""
        for _ in range(BOOTSTRAP_MS // MAX_BLOCK_MS):
            with mapped(), suppress(errors.KafkaTimeoutError):
                return len(self._producer.partitions_for(topic))
        raise PeerTimeout(PEER, f"no metadata of {topic}")

    def knows(self, topics: Iterable[str]) -> bool:
        """Whether the newest metadata has every one of the topics."""
        return all(self._producer._metadata.partitions_for_topic(topic) for topic in topics)  # noqa: SLF001  # cached, never blocks

    def ask(self) -> None:
        """Asks the broker for metadata; an answer reaches the owner. No public call of the client does this."""
        with suppress(RuntimeError):  # dropped in this moment
            self._producer._metadata.request_update().add_callback(lambda _: self._owner.answered())  # noqa: SLF001  # no public call
            self._producer._sender.wakeup()  # noqa: SLF001  # as well

    def send(self, pending: Pending) -> None:
        """Never blocks for longer than MAX_BLOCK_MS, and never raises: the future tells."""
        entry = pending.entry
        if entry is None or not self._took(pending):
            self._owner.released(pending.size_bytes)
            pending.fail(PeerAway(PEER, "the producer was replaced"))
            return
        try:
            future = self._producer.send(
                entry.topic,
                value=entry.value,
                key=entry.key,
                headers=list(entry.headers),
                partition=entry.partition,
            )
        except Exception as problem:  # noqa: BLE001  # whatever the client raises, the caller's future must end
            self._failed(pending, problem)
            return
        pending.entry = None
        future.add_callback(functools.partial(self._acked, pending))
        future.add_errback(functools.partial(self._failed, pending))

    def overdue(self, now_s: float) -> list[Pending]:
        """Those past their deadline; the client may still send them."""
        with self._lock:
            waiting = list(self._pending.values())
        late = []
        for pending in waiting:
            if pending.deadline_s > now_s:
                break
            late.append(pending)
        return late

    def waiting(self) -> bool:
        """Whether a caller still waits for an answer of this line."""
        with self._lock:
            return any(not pending.future.done() for pending in self._pending.values())

    def drop(self) -> None:
        """Ends the client without sending more, then fails what it had not answered."""
        with self._lock:
            self._dropped = True
            left = list(self._pending.values())
        sender = self._producer._sender  # noqa: SLF001  # close() flushes first, and never returns on a wedged one
        try:
            sender.force_close()
            sender.join(timeout=REQUEST_TIMEOUT_MS / 1000)
            with suppress(errors.KafkaError, RuntimeError, OSError):
                self._producer.close(timeout=0)
        finally:
            for pending in left:
                self._settle(pending, PeerAway(PEER, "the producer was replaced; the record may be in the log"))

    def _took(self, pending: Pending) -> bool:
        with self._lock:
            if not self._dropped:
                self._pending[id(pending)] = pending
            return not self._dropped

    def _acked(self, pending: Pending, record: RecordMetadata) -> None:
        self._owner.answered()
        self._left(pending)
        pending.done(Place(record.topic, record.partition, record.offset))

    def _failed(self, pending: Pending, problem: BaseException) -> None:
        self._settle(pending, peer_error(problem))
        if not isinstance(problem, (TypeError, ValueError)):  # those are the record's, not the client's
            self._owner.broken(self)

    def _settle(self, pending: Pending, problem: PeerError) -> None:
        self._left(pending)
        pending.fail(problem)

    def _left(self, pending: Pending) -> None:
        with self._lock:
            held = self._pending.pop(id(pending), None)
        if held is not None:
            self._owner.released(pending.size_bytes)


def too_late(pending: Pending, *, up: bool) -> None:
    """The acknowledgement did not come in time: the caller is told why, as far as is known."""
    detail = "no acknowledgement in time; the record may be in the log"
    pending.fail(PeerTimeout(PEER, detail) if up else PeerAway(PEER, detail))
