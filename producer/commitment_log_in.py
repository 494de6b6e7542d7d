"""The topic ``commitments`` as the desk needs it: every partition of ours from its beginning, then what is new.

One consumer in a group. Nothing is ever committed, so whoever is given a partition reads all of it: what has no
tombstone is owed. A producer that dies leaves its partitions, and what it owed, to another.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, TopicPartition

from contracts.errors import PeerAway, PeerError, SettingsError
from contracts.hooks import Happening, Hooks
from contracts.ports import Mapped
from producer.commitment import ADDRESS
from producer.commitment_desk import Desk

PEER = "kafka"
POLL_MS = 200  # how late a request is seen; a requestor that hangs up at once is given longer than that
RECORDS_AT_ONCE = 20  # a request of 20,000 instances is over a megabyte
CALL_MS = 5_000  # longest wait for the coordinator, well below max.poll.interval
NOTHING_OWNED_MS = 500  # while a group is gathered, a leave is answered only afterwards: nobody waits for that
RETRY_S = 1.0

LogEnds = Callable[[Any, Iterable[TopicPartition]], Mapping[TopicPartition, int]]


class CommitmentLog:
    """``run`` until stopped. ``make`` gives a consumer of the group that knows the topic: auto-commit off, earliest."""

    def __init__(
        self,
        topic: str,
        make: Callable[[], Any],
        log_ends: LogEnds,
        stuck: Callable[[Any, Iterable[TopicPartition]], bool],
        mapped: Mapped,
        desk: Desk,
        hooks: Hooks,
    ) -> None:
        """``stuck`` hears after each poll which partitions delivered, and says whether the consumer hangs.

        ``mapped`` makes our errors of the client's.
        """
        self._topic, self._make, self._log_ends, self._stuck = topic, make, log_ends, stuck
        self._mapped, self._desk, self._hooks = mapped, desk, hooks
        self._consumer: Any = None
        self._ends: dict[TopicPartition, int] = {}  # what must be read before anything is owed
        self._new: set[TopicPartition] = set()  # ours, and their end is not known yet
        self._moves: deque[tuple[bool, TopicPartition]] = deque()  # what the group gave or took, told by its thread

    def run(self, stop: threading.Event) -> None:
        """Reads, and opens a new consumer whenever the broker was away."""
        while not stop.is_set():
            try:
                self._turn()
            except (PeerError, SettingsError):  # settings are told by the watch of the broker, which ends the service
                self._close()
                stop.wait(RETRY_S)
            except Exception:  # noqa: BLE001 - reports are owed; an unexpected error is told and reading goes on
                self._hooks.happened(Happening.FAULT, where="commitment log")
                self._close()
                stop.wait(RETRY_S)
        self._close()

    def moved(self, partitions: Iterable[TopicPartition], *, ours: bool) -> None:
        """The group gave these to us, or took them. Called in any thread; heeded by ours, before it reads on."""
        self._moves.extend((ours, tp) for tp in partitions)

    def _turn(self) -> None:
        consumer = self._open()
        with self._mapped():
            found = consumer.poll(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
        self._heed()
        for records in found.values():
            for record in records:
                self._read(record)
        with self._mapped():
            self._reach(consumer)
            if self._stuck(consumer, found):
                raise PeerAway(PEER, "stuck")

    def _heed(self) -> None:
        while self._moves:
            ours, tp = self._moves.popleft()
            self._ends.pop(tp, None)
            (self._new.add if ours else self._new.discard)(tp)
            (self._desk.began if ours else self._desk.left)(tp.partition)

    def _read(self, record: Any) -> None:
        if record.value is None:
            self._desk.reported(record.partition, record.key or b"")
        else:
            since_s = max(record.timestamp, 0) / 1000.0
            address = dict(record.headers or ()).get(ADDRESS) or b""
            key, where = record.key or b"", address.decode("ascii", "replace")
            self._desk.asked(record.partition, key, record.offset, record.value, since_s, where)

    def _reach(self, consumer: Any) -> None:
        if self._new:
            self._ends |= self._log_ends(consumer, self._new)
            self._new.clear()
        read = [tp for tp, end in self._ends.items() if (consumer.position(tp, timeout_ms=CALL_MS) or 0) >= end]
        for tp in read:
            del self._ends[tp]
            self._desk.complete(tp.partition)

    def _open(self) -> Any:
        if self._consumer is None:
            consumer = self._make()
            consumer.subscribe([self._topic], listener=_Listener(self.moved))
            self._consumer = consumer
        return self._consumer

    def _close(self) -> None:
        """Leaves the group, so that another producer takes over at once."""
        consumer, self._consumer = self._consumer, None
        if consumer is None:
            return
        with suppress(PeerError), self._mapped():  # the group notices by its session that it is gone
            owned = consumer.assignment()
            self.moved(owned, ours=False)
            consumer.close(autocommit=False, timeout_ms=CALL_MS if owned else NOTHING_OWNED_MS)
        self._heed()


class _Listener(ConsumerRebalanceListener):
    """kafka-python's way to say who owns what."""

    def __init__(self, moved: Callable[..., None]) -> None:
        self._moved = moved

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Taken, with our knowledge."""
        self._moved(revoked, ours=False)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Given."""
        self._moved(assigned, ours=True)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Taken while we were silent."""
        self._moved(lost, ours=False)
