"""The loop around one consumer: fetch into custody, commit what is settled, tell how far behind.

One turn
  1. partitions of a lane without room are paused, the others resumed
  2. poll; what comes is in custody; a gap is looked into. What was assigned anew meanwhile is read again
  3. commit what is settled, contiguously, without waiting for the answer
  4. now and then: how far behind (``backlog_in``)
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import FencedInstanceIdError, KafkaError

from contracts.errors import PeerAway
from contracts.hooks import Hooks
from contracts.names import Lane
from contracts.scans import Place
from worker.scoring.backlog_in import PEER, Backlog, Broker
from worker.scoring.custody import NO_TICKET, Custody, Fetched, Partition
from worker.scoring.losses import Losses

_BUSY_POLL_MS = 20  # while scans are in work: room that they leave is used that soon
_IDLE_POLL_MS = 200  # poll returns at once when a record comes
_OTHER_POLL_MS = 1  # only what is buffered already
_BATCH = 16  # records of one poll: the window is overshot by the bytes of that many at most
_COMMIT_S = 0.25  # between commits: what a crash makes us score again
_COMMIT_LOST_S = 10.0  # an answer to a commit is not waited for longer
_FINAL_COMMIT_MS = 2_000
_DRAIN_TURN_S = 0.05


class Polling:
    """Belongs to one thread and one consumer. Raises PeerError (through ``mapped``) when another is needed."""

    def __init__(
        self, broker: Broker, consumer: Any, lanes: Mapping[str, Lane], custody: Custody, hooks: Hooks
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._lanes = lanes
        self._custody = custody
        self._losses = Losses(custody, broker.tell_lost, hooks)
        self._backlog = Backlog(broker, consumer, lanes, custody, self._losses, hooks)
        self._commit_sent_s = time.monotonic()
        self._commit_pending = False
        self._fenced = False
        self._flows: Lane | None = None  # whose records came last

    def turn(self, *, hold_off: bool) -> None:
        """One turn. ``hold_off``: the inference server does not answer, so nothing is fetched."""
        room = {lane: 0 if hold_off else self._custody.room(lane) for lane in Lane}
        self._pause(room)
        tickets = self._custody.tickets()
        self._take(self._poll(room), tickets)
        self._losses.turn(time.monotonic())
        self._commit()
        self._backlog.measure()
        if self._fenced:
            raise PeerAway(PEER, "another member took this one's place")

    def drain(self, drain_s: float) -> None:
        """Fetches nothing more, lets what is in work settle for that long, commits."""
        self._custody.close()
        until_s = time.monotonic() + drain_s
        self._consumer.pause(*self._consumer.assignment())
        while not self._drained() and time.monotonic() < until_s:
            self._consumer.poll(timeout_ms=_BUSY_POLL_MS, max_records=1)  # stays in the group; custody is closed
        settled = self._custody.committable()
        if settled:
            self._consumer.commit(offsets_to_commit(settled), timeout_ms=_FINAL_COMMIT_MS)
            self._custody.committed(settled)

    def _drained(self) -> bool:
        told = self._losses.turn(time.monotonic())
        return self._custody.idle(_DRAIN_TURN_S) and told

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
        records = self._poll_other_lane(room) or self._consumer.poll(timeout_ms=wait_ms, max_records=most)
        came = {self._lanes[tp.topic] for tp in records}
        self._flows = next((lane for lane in (Lane.ROUTINE, Lane.STAT) if lane in came), None)
        self._backlog.delivered(records)
        return dict(records)

    def _poll_other_lane(self, room: Mapping[Lane, int]) -> Any:
        """The client hands out what it has buffered partition by partition, which can be hundreds of scans of one lane:
        while those flow, the other lane is asked for by itself first. What comes of both is weighed in custody.
        """
        other = Lane.STAT if self._flows is Lane.ROUTINE else Lane.ROUTINE
        if self._flows is None or not room[other]:
            return {}
        active = self._consumer.assignment() - self._consumer.paused()
        flowing = [tp for tp in active if self._lanes[tp.topic] is not other]
        self._consumer.pause(*flowing)
        try:
            return self._consumer.poll(timeout_ms=_OTHER_POLL_MS, max_records=min(room[other], _BATCH))
        finally:
            self._consumer.resume(*(tp for tp in flowing if tp in self._consumer.assignment()))

    def _take(self, batches: Mapping[TopicPartition, list[Any]], tickets: Mapping[Partition, int]) -> None:
        for tp, batch in batches.items():
            ticket = tickets.get(tuple(tp), NO_TICKET)
            if self._same(tp, ticket):  # a gap before a batch that will be read again is looked into then
                self._look_into_gap(tp, batch[0])
            for record in batch:
                self._custody.add(fetched(record, self._lanes[tp.topic]), ticket)
            if not self._same(tp, ticket):
                self._rewind(tp)

    def _same(self, tp: TopicPartition, ticket: int) -> bool:
        """Whether the partition was not assigned anew since; one that is not ours has nothing to be read again."""
        return self._custody.tickets().get(tuple(tp), ticket) == ticket

    def _rewind(self, tp: TopicPartition) -> None:
        """Assigned anew since the poll began: nothing tells whether a batch is of before or after that, so it was
        refused. The client has gone past it, and would leave it out.
        """
        with suppress(ValueError):  # not ours any more
            self._consumer.seek(tp, self._backlog.begins(tp))

    def _look_into_gap(self, tp: TopicPartition, record: Any) -> None:
        """A log that starts beyond what we had to read has lost records; compaction and markers leave gaps too."""
        if record.offset > self._backlog.begins(tp):
            start = min(self._broker.log_start(self._consumer, tp), record.offset)
            self._backlog.lost(tp, start, record.timestamp / 1000)

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
