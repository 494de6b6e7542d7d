"""The loop around one consumer: fetch into custody, commit what is settled, tell how far behind.

One turn
  1. partitions of a lane without room are paused, the others resumed
  2. poll; what comes is in custody; a gap is looked into
  3. commit what is settled, contiguously, without waiting for the answer
  4. now and then: tell lag and window, look after partitions that give nothing
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError

from contracts.errors import PeerAway
from contracts.hooks import Happening, Hooks
from contracts.names import Lane
from contracts.scans import Place
from worker.scoring.custody import Custody, Fetched, Partition

PEER = "kafka"
_BUSY_POLL_MS = 20  # while scans are in work: room that they leave is used that soon
_IDLE_POLL_MS = 200  # poll returns at once when a record comes
_STAT_POLL_MS = 1  # only what is buffered already
_BATCH = 16  # records of one poll: the window is overshot by the bytes of that many at most
_COMMIT_S = 0.25  # between commits: what a crash makes us score again
_COMMIT_LOST_S = 10.0  # an answer to a commit is not waited for longer
_MEASURE_S = 1.0
_ENDS_S = 5.0  # between questions to the broker for the ends of the partitions
_ASK_MS = 2_000
_FINAL_COMMIT_MS = 3_000
_DRAIN_TURN_S = 0.05


class Watchdog(Protocol):
    """Notices partitions that have records, may be read, and give none."""

    def delivered(self, partitions: Iterable[Any]) -> None:
        """These gave records just now."""

    def stuck(self, backlog: Mapping[Any, int]) -> frozenset[Any]:
        """Those that wait too long."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How a consumer is made and asked: ``launch`` hands it in, with the guards against the client's faults."""

    consumer: Callable[[], Any]
    log_start: Callable[[Any, TopicPartition], int]
    backlog_of: Callable[[Any], Mapping[TopicPartition, int]]
    watchdog: Callable[[], Watchdog]


class Polling:
    """Belongs to one thread and one consumer. Raises PeerError (through ``mapped``) when another is needed."""

    def __init__(
        self, broker: Broker, consumer: Any, lanes: Mapping[str, Lane], custody: Custody, hooks: Hooks
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._lanes = lanes
        self._custody = custody
        self._hooks = hooks
        self._watchdog = broker.watchdog()
        self._commit_sent_s = self._measured_s = self._ends_s = time.monotonic()
        self._commit_pending = False
        self._fenced = False
        self._routine_flows = False
        self._ends: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}  # of partitions from which nothing was fetched yet
        self._behind_since: dict[TopicPartition, float] = {}

    def turn(self, *, hold_off: bool) -> None:
        """One turn. ``hold_off``: the inference server does not answer, so nothing is fetched."""
        room = {lane: 0 if hold_off else self._custody.room(lane) for lane in Lane}
        self._pause(room)
        self._take(self._poll(room))
        self._commit()
        self._measure()
        if self._fenced:
            raise PeerAway(PEER, "another member took this one's place")

    def drain(self, drain_s: float) -> None:
        """Fetches nothing more, lets what is in work settle for that long, commits."""
        self._custody.close()
        until_s = time.monotonic() + drain_s
        self._consumer.pause(*self._consumer.assignment())
        while not self._custody.idle(_DRAIN_TURN_S) and time.monotonic() < until_s:
            self._consumer.poll(timeout_ms=_BUSY_POLL_MS, max_records=1)  # stays in the group; custody is closed
        settled = self._custody.committable()
        if settled:
            self._consumer.commit(offsets_to_commit(settled), timeout_ms=_FINAL_COMMIT_MS)
            self._custody.committed(settled)

    def _pause(self, room: Mapping[Lane, int]) -> None:
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        full = {tp for tp in assigned if not room[self._lanes[tp.topic]]}
        if full - paused:
            self._consumer.pause(*(full - paused))
        if (paused & assigned) - full:
            self._consumer.resume(*((paused & assigned) - full))

    def _poll(self, room: Mapping[Lane, int]) -> Mapping[TopicPartition, list[Any]]:
        open_rooms = [records for records in room.values() if records]
        most = min((*open_rooms, _BATCH)) if open_rooms else 1
        busy = not open_rooms or self._custody.in_flight[0]
        wait_ms = _BUSY_POLL_MS if busy else _IDLE_POLL_MS
        records = self._poll_stat_alone(room) or self._consumer.poll(timeout_ms=wait_ms, max_records=most)
        self._routine_flows = any(self._lanes[tp.topic] is Lane.ROUTINE for tp in records)
        self._watchdog.delivered(records)
        return dict(records)

    def _poll_stat_alone(self, room: Mapping[Lane, int]) -> Any:
        """The client hands out what it has buffered partition by partition, which can be hundreds of routine scans:
        while those flow, stat is asked for by itself first.
        """
        if not (self._routine_flows and room[Lane.STAT]):
            return {}
        active = self._consumer.assignment() - self._consumer.paused()
        routine = [tp for tp in active if self._lanes[tp.topic] is Lane.ROUTINE]
        self._consumer.pause(*routine)
        try:
            return self._consumer.poll(timeout_ms=_STAT_POLL_MS, max_records=min(room[Lane.STAT], _BATCH))
        finally:
            self._consumer.resume(*(tp for tp in routine if tp in self._consumer.assignment()))

    def _take(self, batches: Mapping[TopicPartition, list[Any]]) -> None:
        for tp, batch in batches.items():
            self._look_into_gap(tp, batch[0].offset)
            for record in batch:
                self._custody.add(fetched(record, self._lanes[tp.topic]))

    def _look_into_gap(self, tp: TopicPartition, offset: int) -> None:
        """A log that starts beyond what we had to read has lost records; compaction and markers leave gaps too."""
        expected = self._custody.expected(tuple(tp))
        if expected is None:
            expected = self._consumer.committed(tp)
        if expected is None or offset <= expected:
            return
        lost = min(self._broker.log_start(self._consumer, tp), offset) - expected
        if lost > 0:
            self._hooks.happened(Happening.RECORDS_LOST, float(lost), topic=tp.topic)

    def _commit(self) -> None:
        waited_s = time.monotonic() - self._commit_sent_s
        if waited_s < (_COMMIT_LOST_S if self._commit_pending else _COMMIT_S):
            return
        settled = self._custody.committable()
        if settled:
            self._commit_pending, self._commit_sent_s = True, time.monotonic()
            self._consumer.commit_async(offsets_to_commit(settled), callback=self._committed)

    def _committed(self, offsets: Mapping[TopicPartition, OffsetAndMetadata], response: Any) -> None:
        """A refused commit is sent again with the next; a fenced member needs another consumer."""
        self._commit_pending = False
        if isinstance(response, FencedInstanceIdError):
            self._fenced = True  # kafka-python goes on returning records: stop on it
        elif not isinstance(response, Exception):
            self._custody.committed({tuple(tp): commit.offset for tp, commit in offsets.items()})

    # How far behind

    def _measure(self) -> None:
        now_s = time.monotonic()
        if now_s - self._measured_s < _MEASURE_S:
            return
        self._measured_s = now_s
        self._ask_ends(now_s)
        backlog = self._backlog()
        if self._watchdog.stuck(backlog):
            self._hooks.happened(Happening.FAULT, where="scoring_consumer")
            raise PeerAway(PEER, "a partition has records and gives none")
        for tp in self._consumer.assignment():
            self._tell_lag(tp, backlog.get(tp, 0), now_s)
        images, size_bytes = self._custody.in_flight
        self._hooks.happened(Happening.IN_FLIGHT_IMAGES, float(images))
        self._hooks.happened(Happening.IN_FLIGHT_BYTES, float(size_bytes))

    def _backlog(self) -> dict[TopicPartition, int]:
        """Records known to wait where they may be read: by the last fetch, and by what the broker said when asked."""
        backlog = dict(self._broker.backlog_of(self._consumer))
        for tp in self._consumer.assignment() - self._consumer.paused():
            expected = self._custody.expected(tuple(tp))
            start = self._starts.get(tp) if expected is None else expected
            if start is not None:
                backlog[tp] = max(backlog.get(tp, 0), self._ends.get(tp, 0) - start)
        return backlog

    def _ask_ends(self, now_s: float) -> None:
        """Fetches tell nothing of partitions that are paused, or that the client forgets to fetch."""
        assigned = self._consumer.assignment()
        if not assigned or now_s - self._ends_s < _ENDS_S:
            return
        self._ends_s = now_s
        with suppress(KafkaError):  # a measurement: the next one will do
            self._ends = self._consumer.end_offsets(list(assigned), timeout_ms=_ASK_MS)
            unread = [tp for tp in assigned if self._custody.expected(tuple(tp)) is None]
            first = self._consumer.beginning_offsets(unread, timeout_ms=_ASK_MS) if unread else {}
            commits = {tp: self._consumer.committed(tp, timeout_ms=_ASK_MS) for tp in unread}
            self._starts = {tp: max(commits[tp] or 0, first[tp]) for tp in unread}

    def _tell_lag(self, tp: TopicPartition, backlog: int, now_s: float) -> None:
        """Behind is what is not settled, fetched or not; its age by the broker's time of append, where known."""
        next_offset = self._custody.position(tuple(tp))
        end = max(self._consumer.highwater(tp) or 0, self._ends.get(tp, 0))
        lag = backlog if next_offset is None else max(0, end - next_offset)
        oldest_s = self._custody.oldest_s(tuple(tp))
        since_s = self._behind_since.setdefault(tp, now_s) if lag else self._behind_since.pop(tp, now_s)
        age_s = now_s - since_s if oldest_s is None or not lag else max(0.0, time.time() - oldest_s)
        labels = {"topic": tp.topic, "partition": str(tp.partition)}
        self._hooks.happened(Happening.LAG_RECORDS, float(lag), **labels)
        self._hooks.happened(Happening.LAG_SECONDS, age_s if lag else 0.0, **labels)


def fetched(record: Any, lane: Lane) -> Fetched:
    """A ConsumerRecord as custody keeps it."""
    return Fetched(
        place=Place(record.topic, record.partition, record.offset),
        lane=lane,
        key=record.key or b"",
        headers=tuple((name, value or b"") for name, value in record.headers),
        value=record.value or b"",
        appended_s=record.timestamp / 1000,
    )


def offsets_to_commit(offsets: Mapping[Partition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
    """As kafka-python wants them."""
    return {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}


@contextmanager
def mapped() -> Iterator[None]:
    """kafka-python's exceptions stop here: whatever it was, another consumer is the remedy."""
    try:
        yield
    except (KafkaError, OSError, RuntimeError) as problem:
        raise PeerAway(PEER, type(problem).__name__) from problem
