"""What is durable, as this process knows it: its own acknowledgements, and what ``study.events`` tells of the others'.

Reading begins with the first request that anybody has to answer, at the moment before which no scan is kept any more
(``kafka.scan_retention_s``): a site that never asks pays nothing. An answer is given only from an index that has been
read up to where the log ended after the question, so that *never arrived* is as true as *durable*.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from contracts import events
from contracts.errors import DecodeError, PeerError, PeerTimeout, SettingsError
from contracts.events import Arrived, NotAnalysed, Scored
from contracts.hooks import Happening, Hooks
from contracts.names import Topics
from contracts.ports import Mapped
from contracts.reasons import Reason
from contracts.scans import Place, ScanHeaders
from producer.commitment import Version
from producer.commitment_log_in import LogEnds
from producer.commitment_table_call import PEER as TABLE
from producer.commitment_table_call import Fact, Table

POLL_MS = 200
RECORDS_AT_ONCE = 1000
CALL_MS = 5_000  # longest wait for one answer of the broker
RETRY_S = 1.0
OWN_LIMIT = 20_000  # acknowledgements of our own not yet in the table; older ones are on the log with their outcome
MARGIN_S = 3600.0  # clocks differ, and a segment is kept a little longer than it must
PRUNE_S = 3600.0
KINDS = (b"arrived", b"scored", b"not_analysed")
# Outcomes that say that the scan, or its payload, is not there any more, or cannot be read.
NO_PROOF = frozenset({Reason.PAYLOAD_MISSING, Reason.RECORD_UNREADABLE, Reason.RECORD_LOST})


@dataclass(frozen=True, slots=True)
class Broker:
    """``consumer``: makes one without a group, that knows the topics. ``keeps``: its log survives its restart."""

    consumer: Callable[[], Any]
    log_ends: LogEnds
    mapped: Mapped
    topics: Topics
    scan_retention_s: float
    keeps: bool


class Index:
    """``run`` until stopped; ``acknowledged`` and ``known`` from any thread."""

    def __init__(self, broker: Broker, table: Table, hooks: Hooks) -> None:
        self._broker, self._table, self._hooks = broker, table, hooks
        self._own: deque[Fact] = deque(maxlen=OWN_LIMIT)
        self._asked = threading.Event()
        self._changed = threading.Condition()
        self._wanted = self._reached = 0  # questions, in order of asking
        self._starts: Mapping[tuple[str, int], int] = {}
        self._restart = threading.Event()
        self._next: dict[TopicPartition, int] = {}  # where to read on after the broker was away
        self._consumer: Any = None
        self._target: tuple[int, dict[TopicPartition, int]] | None = None
        self._pruned_s = time.monotonic()

    def acknowledged(self, headers: ScanHeaders, place: Place) -> None:
        """Scan and ``arrived`` are durable; the sender is told Success. Never blocks, never raises."""
        uids = (headers.sop_instance_uid, headers.pixel_digest, headers.sop_class_uid)
        self._own.append(Fact(*uids, place, headers.received_at))

    def forget(self) -> None:
        """A broker that keeps nothing was lost: what it acknowledged is gone."""
        self._own.clear()
        self._restart.set()

    def known(self, instances: Iterable[str], timeout_s: float) -> Mapping[str, list[Version]]:
        """Versions by SOP Instance UID, as of now. Raises PeerError where the log cannot be read to its end in time."""
        with self._changed:
            self._wanted += 1
            ticket = self._wanted
            self._asked.set()
            if not self._changed.wait_for(lambda: self._reached >= ticket, timeout_s):
                raise PeerTimeout("kafka", "study.events is not read to its end yet")
            starts = self._starts
        self._take_own()
        return self._table.known(instances, starts)

    def run(self, stop: threading.Event) -> None:
        """Waits for the first question, then reads to the end."""
        while not stop.is_set():
            if not self._asked.wait(POLL_MS / 1000):
                continue
            try:
                self._turn()
            except (PeerError, SettingsError) as problem:  # the watch of the broker tells of wrong settings
                if isinstance(problem, PeerError) and problem.peer == TABLE:
                    self._restart.set()
                self._close()
                stop.wait(RETRY_S)
            except Exception:  # noqa: BLE001 - reports are owed; an unexpected error is told and reading goes on
                self._hooks.happened(Happening.FAULT, where="commitment index")
                self._close()
                stop.wait(RETRY_S)
        self._close()

    def _turn(self) -> None:
        """1. What is new. 2. Is a question answered by it? 3. What is the next one? 4. What is too old."""
        if self._restart.is_set():
            self._start_anew()
        consumer = self._consumer or self._open()
        with self._broker.mapped():
            found = consumer.poll(timeout_ms=POLL_MS, max_records=RECORDS_AT_ONCE)
        self._table.add(fact for records in found.values() for record in records for fact in facts_of(record))
        self._next |= {tp: records[-1].offset + 1 for tp, records in found.items()}
        with self._broker.mapped():
            self._answer(consumer)
            self._look_ahead(consumer)
        self._prune()

    def _answer(self, consumer: Any) -> None:
        if self._target is None:
            return
        ticket, ends = self._target
        if any((consumer.position(tp, timeout_ms=CALL_MS) or 0) < end for tp, end in ends.items()):
            return
        self._target = None
        with self._changed:
            self._reached = ticket
            self._changed.notify_all()

    def _look_ahead(self, consumer: Any) -> None:
        if self._target is not None or self._wanted == self._reached:
            return
        ticket = self._wanted
        ends = dict(self._broker.log_ends(consumer, consumer.assignment()))
        self._starts = self._log_starts(consumer)
        self._target = (ticket, ends)

    def _log_starts(self, consumer: Any) -> dict[tuple[str, int], int]:
        lanes = (self._broker.topics.stat, self._broker.topics.routine)
        tps = [TopicPartition(lane, tp.partition) for lane in lanes for tp in consumer.assignment()]
        starts = consumer.beginning_offsets(tps, timeout_ms=CALL_MS)
        return {(tp.topic, tp.partition): offset for tp, offset in starts.items()}

    def _start_anew(self) -> None:
        self._restart.clear()
        self._close()
        self._next.clear()
        self._table.clear()

    def _open(self) -> Any:
        """Reads on; the first time from the beginning of what may still be kept."""
        consumer = self._broker.consumer()
        with self._broker.mapped():
            self._consumer = consumer
            numbers = consumer.partitions_for_topic(self._broker.topics.events) or ()
            consumer.assign([TopicPartition(self._broker.topics.events, number) for number in numbers])
            consumer.seek_to_beginning()
            if self._broker.keeps and not self._next:
                self._skip(consumer)
            for tp, offset in self._next.items():
                consumer.seek(tp, offset)
        return consumer

    def _skip(self, consumer: Any) -> None:
        """Past what was told before the oldest scan that is kept. A partition without anything newer is read whole."""
        since_ms = int((time.time() - self._broker.scan_retention_s - MARGIN_S) * 1000)
        places = consumer.offsets_for_times(dict.fromkeys(consumer.assignment(), since_ms), timeout_ms=CALL_MS)
        self._next |= {tp: place.offset for tp, place in places.items() if place is not None}

    def _take_own(self) -> None:
        own: list[Fact] = []
        with suppress(IndexError):  # others take from it too
            while True:
                own.append(self._own.popleft())
        self._table.add(own)

    def _prune(self) -> None:
        if time.monotonic() - self._pruned_s > PRUNE_S:
            self._pruned_s = time.monotonic()
            self._table.forget(time.time() - self._broker.scan_retention_s - MARGIN_S)

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._target = None
        if consumer is not None:
            try:
                consumer.close(autocommit=False, timeout_ms=CALL_MS)
            except Exception:  # noqa: BLE001 - whatever it was, this consumer is not used again
                self._hooks.happened(Happening.FAULT, where="commitment index")


def facts_of(record: Any) -> Iterable[Fact]:
    """What one record of ``study.events`` says of an instance: nothing, or one fact."""
    _, _, rest = (record.key or b"").partition(b"|")  # the study comes first
    if record.value is None or rest.partition(b"|")[0] not in KINDS:
        return
    try:
        event = events.decode(record.value)
    except DecodeError:
        return  # counted by flagging; it proves nothing
    fact = _fact(event, record.timestamp / 1000.0)
    if fact is not None:
        yield fact


def _fact(event: events.StudyEvent, at_s: float) -> Fact | None:
    if isinstance(event, Arrived):
        return Fact(event.sop_instance_uid, event.pixel_digest, event.sop_class_uid, None, at_s)
    if not isinstance(event, Scored | NotAnalysed) or event.scan is None:
        return None
    if isinstance(event, NotAnalysed) and event.reason in NO_PROOF:
        return None
    place = Place(event.scan.topic, event.scan.partition, event.scan.offset)
    return Fact(event.sop_instance_uid, event.pixel_digest, "", place, at_s)
