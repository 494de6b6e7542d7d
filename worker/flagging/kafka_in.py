"""``study.events`` as records by partition. One consumer in the group, owned by one thread.

Positions are the view's, never the group's: whoever takes a partition seeks to the offset found in the store. The
group's committed offset means something else: up to where changes were announced (audit, live events).
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition
from kafka.structs import OffsetAndMetadata

from contracts.errors import PeerAway, PeerError
from contracts.ports import Mapped
from worker.flagging.view import Raw

PEER = "kafka"
POLL_MS = 50  # how long an idle turn waits: timers and beats run in between
RECORDS_AT_ONCE = 500  # one atomic write: about half a megabyte of script arguments
CALL_MS = 5_000  # longest wait for the coordinator, well below max.poll.interval


class _Regained(ConsumerRebalanceListener):
    """Remembers which partitions the group gave to us, even where it took them away in the same poll."""

    def __init__(self) -> None:
        self.partitions: set[int] = set()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Whoever comes next finds in the store where to go on."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """The consumer now stands at the group's commit, which is not where the view stands."""
        self.partitions |= {tp.partition for tp in assigned}


class EventsIn:
    """The events topic. Connects on first use; after a PeerError call ``reopen``.

    ``make`` gives a consumer of the group that knows the topic, auto-commit off; ``log_ends`` asks the broker for
    partitions' ends; ``log_id`` tells a topic's id as the consumer knows it, "" where the broker tells none;
    ``stuck`` hears after each poll which partitions delivered, and says whether the consumer hangs; ``mapped`` makes
    our errors of the client's.
    """

    def __init__(
        self,
        topic: str,
        make: Callable[[], Any],
        log_ends: Callable[[Any, Iterable[TopicPartition]], Mapping[TopicPartition, int]],
        log_id: Callable[[Any, str], str],
        stuck: Callable[[Any, Iterable[TopicPartition]], bool],
        mapped: Mapped,
    ) -> None:
        self.topic = topic
        self._make = make
        self._log_ends = log_ends
        self._log_id = log_id
        self._stuck = stuck
        self._mapped = mapped
        self._regained = _Regained()
        self._consumer: Any = None

    def poll(self, timeout_ms: int = POLL_MS) -> Mapping[int, list[Raw]]:
        """New records by partition, oldest first."""
        with self._mapped():
            found = self._open().poll(timeout_ms=timeout_ms, max_records=RECORDS_AT_ONCE)
            if self._stuck(self._consumer, found):
                raise PeerAway(PEER, "stuck")
        return {tp.partition: [_raw(record) for record in records] for tp, records in found.items()}

    def assigned(self) -> set[int]:
        """The partitions that the group gave to us."""
        with self._mapped():
            return {tp.partition for tp in self._open().assignment()}

    def regained(self) -> set[int]:
        """Partitions given to us since the last call, also those that we had before: their position is lost."""
        regained, self._regained.partitions = self._regained.partitions, set()
        return regained

    def hold(self, partition: int) -> None:
        """Nothing more of this partition until ``start``."""
        with self._mapped():
            self._open().pause(self._tp(partition))

    def start(self, partition: int, offset: int) -> None:
        """Reads on from that offset."""
        with self._mapped():
            self._open().seek(self._tp(partition), offset)
            self._open().resume(self._tp(partition))

    def announced(self, partition: int) -> int:
        """The offset up to which changes were announced; 0 where nothing was."""
        with self._mapped():
            return int(self._open().committed(self._tp(partition), timeout_ms=CALL_MS) or 0)

    def announce(self, offsets: Mapping[int, int]) -> None:
        """Commits up to where changes were announced."""
        with self._mapped():
            wanted = {self._tp(number): OffsetAndMetadata(offset, "", -1) for number, offset in offsets.items()}
            self._open().commit(wanted, timeout_ms=CALL_MS)

    def seen_end(self, partition: int) -> int | None:
        """The log's end as of the last fetch; None before the first."""
        with self._mapped():
            end = self._open().highwater(self._tp(partition))
        return None if end is None else int(end)

    def position(self, partition: int) -> int:
        """Where the next fetch begins: beyond gaps that compaction left."""
        with self._mapped():
            return int(self._open().position(self._tp(partition), timeout_ms=CALL_MS) or 0)

    def ends(self, partitions: Iterable[int]) -> dict[int, int]:
        """The ends of partitions' logs, asked of the broker."""
        found = self._log_ends(self._open(), [self._tp(number) for number in partitions])
        return {tp.partition: end for tp, end in found.items()}

    def log_id(self) -> str:
        """Which log this is: another id means that the topic was made anew, and offsets with it."""
        return self._log_id(self._open(), self.topic)

    def reopen(self) -> None:
        """Drops the consumer; the next call makes a new one."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            with suppress(PeerError), self._mapped():  # the group notices by its session that it is gone
                consumer.close(autocommit=False, timeout_ms=CALL_MS)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self.topic, partition)

    def _open(self) -> Any:
        if self._consumer is None:
            self._consumer = self._make()
            self._consumer.subscribe([self.topic], listener=self._regained)
        return self._consumer


def _raw(record: Any) -> Raw:
    return Raw(record.offset, record.timestamp / 1000.0, record.key or b"", record.value)
