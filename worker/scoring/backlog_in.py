"""How far behind scoring is, and how near what waits is to the end of its retention; looks after stuck partitions.

Every so often
  1. the broker is asked for the ends of all partitions that are ours: fetches tell nothing of those that are paused
  2. one that was emptied before it was read is a loss (a record behind a loss is found when it is fetched)
  3. a partition that has records, may be read and gives none needs another consumer
  4. lag and age are told: by partition, and the oldest of each lane against its retention
"""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from kafka import TopicPartition
from kafka.errors import KafkaError

from contracts.errors import PeerAway, PeerError
from contracts.events import Lost
from contracts.hooks import Happening, Hooks
from contracts.names import Lane
from contracts.scans import Place
from worker.scoring.custody import Custody
from worker.scoring.losses import Losses, Tell

PEER = "kafka"
_MEASURE_S = 1.0
_ENDS_S = 5.0  # between questions to the broker for the ends of the partitions
_ASK_MS = 2_000
DANGER_SHARE = 0.5  # of the retention: the other half is left for somebody to do something


class Watchdog(Protocol):
    """Notices partitions that have records, may be read, and give none."""

    def delivered(self, partitions: Iterable[Any]) -> None:
        """These gave records just now."""

    def stuck(self, backlog: Mapping[Any, int]) -> frozenset[Any]:
        """Those that wait too long."""


@dataclass(frozen=True, slots=True)
class Broker:
    """How a consumer is made and asked: ``launch`` hands it in, with the guards against the client's faults.

    ``appended_s``: when the broker took the record at a place (epoch seconds; raises PeerError).
    """

    consumer: Callable[[], Any]
    log_start: Callable[[Any, TopicPartition], int]
    backlog_of: Callable[[Any], Mapping[TopicPartition, int]]
    watchdog: Callable[[], Watchdog]
    appended_s: Callable[[Place], float]
    tell_lost: Tell
    retention_s: float


class Backlog:
    """Of one consumer. Raises PeerError where another is needed."""

    def __init__(
        self,
        broker: Broker,
        consumer: Any,
        lanes: Mapping[str, Lane],
        custody: Custody,
        losses: Losses,
        hooks: Hooks,
    ) -> None:
        self._broker = broker
        self._consumer = consumer
        self._lanes = lanes
        self._custody = custody
        self._losses = losses
        self._hooks = hooks
        self._watchdog = broker.watchdog()
        self._measured_s = self._ends_s = time.monotonic()
        self._ends: dict[TopicPartition, int] = {}
        self._starts: dict[TopicPartition, int] = {}  # where reading begins, of partitions of which nothing was fetched
        self._behind_since: dict[TopicPartition, float] = {}
        self._appended_s: dict[TopicPartition, tuple[int, float]] = {}  # the first unread record: offset, when

    def delivered(self, partitions: Iterable[TopicPartition]) -> None:
        """These gave records just now."""
        self._watchdog.delivered(partitions)

    def begins(self, tp: TopicPartition) -> int:
        """The next offset to read: after what was fetched, else the commit, else the very first."""
        expected = self._custody.expected(tuple(tp))
        if expected is None:
            expected = self._consumer.committed(tp, timeout_ms=_ASK_MS)
        return expected or 0

    def lost(self, tp: TopicPartition, upto: int, before: float | None) -> None:
        """Records before ``upto`` are gone; the first that is left was appended at ``before``, None where none is."""
        first = self.begins(tp)
        if upto > first:
            lane, at = self._lanes[tp.topic], time.time()
            told = Lost(lane=lane, topic=tp.topic, partition=tp.partition, first=first, upto=upto, before=before, at=at)
            self._losses.found(told, time.monotonic())

    def measure(self) -> None:
        """Does nothing most of the time."""
        now_s = time.monotonic()
        if now_s - self._measured_s < _MEASURE_S:
            return
        self._measured_s = now_s
        self._ask_ends(now_s)
        backlog = self._backlog()
        if self._watchdog.stuck(backlog):
            self._hooks.happened(Happening.FAULT, where="scoring_consumer")
            raise PeerAway(PEER, "a partition has records and gives none")
        self._tell(backlog, now_s)

    def _ask_ends(self, now_s: float) -> None:
        """Fetches tell nothing of partitions that are paused, or that the client forgets to fetch."""
        assigned = self._consumer.assignment()
        if not assigned or now_s - self._ends_s < _ENDS_S:
            return
        self._ends_s = now_s
        with suppress(KafkaError):  # the next time will do
            self._ends = self._consumer.end_offsets(list(assigned), timeout_ms=_ASK_MS)
            firsts = self._consumer.beginning_offsets(list(assigned), timeout_ms=_ASK_MS)
            for tp in assigned:
                if firsts[tp] >= self._ends[tp]:  # nothing is left
                    self.lost(tp, firsts[tp], None)
            unread = [tp for tp in assigned if self._custody.expected(tuple(tp)) is None]
            self._starts = {tp: max(self.begins(tp), firsts[tp]) for tp in unread}

    def _backlog(self) -> dict[TopicPartition, int]:
        """Records known to wait where they may be read: by the last fetch, and by what the broker said when asked."""
        backlog = dict(self._broker.backlog_of(self._consumer))
        for tp in self._consumer.assignment() - self._consumer.paused():
            start = self._first_unread(tp)
            if start is not None:
                backlog[tp] = max(backlog.get(tp, 0), self._ends.get(tp, 0) - start)
        return backlog

    def _first_unread(self, tp: TopicPartition) -> int | None:
        expected = self._custody.expected(tuple(tp))
        return self._starts.get(tp) if expected is None else expected

    def _tell(self, backlog: Mapping[TopicPartition, int], now_s: float) -> None:
        ages = {tp: self._tell_lag(tp, backlog.get(tp, 0), now_s) for tp in self._consumer.assignment()}
        for lane in Lane:
            oldest_s = max((age_s for tp, age_s in ages.items() if self._lanes[tp.topic] is lane), default=0.0)
            danger = float(oldest_s > self._broker.retention_s * DANGER_SHARE)
            self._hooks.happened(Happening.BACKLOG_AGE_SECONDS, oldest_s, lane=lane.value)
            self._hooks.happened(Happening.BACKLOG_IN_DANGER, danger, lane=lane.value)
        images, size_bytes = self._custody.in_flight
        self._hooks.happened(Happening.IN_FLIGHT_IMAGES, float(images))
        self._hooks.happened(Happening.IN_FLIGHT_BYTES, float(size_bytes))

    def _tell_lag(self, tp: TopicPartition, backlog: int, now_s: float) -> float:
        """Behind is what is not settled, fetched or not. Returns the age of the oldest of it."""
        unsettled = self._custody.position(tuple(tp))
        first = self._starts.get(tp) if unsettled is None else unsettled
        end = max(self._consumer.highwater(tp) or 0, self._ends.get(tp, 0))
        lag = backlog if first is None else max(0, end - first)
        age_s = self._age_s(tp, first, now_s) if lag else 0.0
        if not lag:
            self._behind_since.pop(tp, None)
        labels = {"topic": tp.topic, "partition": str(tp.partition)}
        self._hooks.happened(Happening.LAG_RECORDS, float(lag), **labels)
        self._hooks.happened(Happening.LAG_SECONDS, age_s, **labels)
        return age_s

    def _age_s(self, tp: TopicPartition, first: int | None, now_s: float) -> float:
        """By the broker's time of append where it can be known, else for how long we have known of the lag."""
        since_s = self._behind_since.setdefault(tp, now_s)
        appended_s = self._custody.oldest_s(tuple(tp))
        if appended_s is None and first is not None:
            appended_s = self._first_appended_s(tp, first)
        return now_s - since_s if appended_s is None else max(0.0, time.time() - appended_s)

    def _first_appended_s(self, tp: TopicPartition, first: int) -> float | None:
        """Of a record that nobody fetched yet: it is asked for once."""
        known = self._appended_s.get(tp)
        if known is None or known[0] != first:
            with suppress(PeerError):  # gone, or not to be had just now
                known = (first, self._broker.appended_s(Place(tp.topic, tp.partition, first)))
                self._appended_s[tp] = known
        return known[1] if known is not None and known[0] == first else None
