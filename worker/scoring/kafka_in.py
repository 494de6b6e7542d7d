"""Scans from Kafka: one consumer of one group over both lanes, owned by one thread.

Revoked partitions: what is settled is committed, the rest dropped for the next owner, which starts from the commit.
Lost ones: dropped. A commit that is refused because the group has moved on (a zombie's) changes nothing: the
partitions are lost next, and what is still in work for them has no effect.
"""

import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from math import nan
from typing import Any

from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import KafkaError

from contracts.errors import PeerError
from contracts.hooks import Happening, Hooks
from contracts.names import Lane, Topics
from contracts.ports import Log
from worker.scoring.backlog_in import PEER, Broker
from worker.scoring.custody import Custody
from worker.scoring.polling_in import Polling, mapped, offsets_to_commit

_RETRY_S = 1.0  # between attempts to get a consumer
_CLOSE_MS = 1_500  # for leaving the group: a broker that does not answer notices by the session
_STALLED_S = 60.0  # a loop that has not turned for so long is not ready: above any rebalance and call to the broker


class ScanReader:
    """Fetches records into custody and commits what is settled. ``run`` belongs to one thread."""

    def __init__(  # noqa: PLR0913 (ports and settings of the one loop)
        self,
        broker: Broker,
        log: Log,
        topics: Topics,
        group: str,
        custody: Custody,
        hooks: Hooks,
        *,
        drain_s: float,
        hold_off: Callable[[], bool],
    ) -> None:
        self._broker = broker
        self._log = log
        self._lanes = {topics.stat: Lane.STAT, topics.routine: Lane.ROUTINE}
        self._group = group
        self._custody = custody
        self._hooks = hooks
        self._drain_s = drain_s
        self._hold_off = hold_off
        self._up: bool | None = None
        self._turned_s = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; a broker that is away is waited for. Returns when what was in work is settled or given up."""
        while not stop.is_set():
            self._turned_s = time.monotonic()
            try:
                self._session(stop)
            except PeerError:
                self._tell_up(up=False)
                stop.wait(_RETRY_S)
        self._custody.close()

    def turning(self) -> bool:
        """Whether the loop turns."""
        return time.monotonic() - self._turned_s < _STALLED_S

    def up(self) -> bool | None:
        """Whether the broker answered lately."""
        return self._up if self._up is None else self._up and self._log.up()

    def _session(self, stop: threading.Event) -> None:
        """One consumer's life. Raises PeerError when another one is needed."""
        consumer = self._broker.consumer()
        polling = Polling(self._broker, consumer, self._lanes, self._custody, self._hooks)
        listener = Rebalances(consumer, self._custody, self._group, self._hooks)
        try:
            with mapped():
                consumer.subscribe(topics=list(self._lanes), listener=listener)
                while not stop.is_set():
                    self._turned_s = time.monotonic()
                    polling.turn(hold_off=self._hold_off())
                    self._tell_up(up=True)
                polling.drain(self._drain_s)
        finally:
            self._custody.drop(self._custody.partitions)  # closing must not wait for a commit of its own
            _close(consumer)

    def _tell_up(self, *, up: bool) -> None:
        if self._up is not up:
            self._up = up
            self._hooks.happened(Happening.PEER_UP, float(up), peer=PEER)


class Rebalances(AsyncConsumerRebalanceListener):
    """Called on the client's own thread, which also carries the heartbeats: nothing here may block."""

    def __init__(self, consumer: Any, custody: Custody, group: str, hooks: Hooks) -> None:
        self._consumer = consumer
        self._custody = custody
        self._group = group
        self._hooks = hooks

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Ours from now on, from their commit."""
        self._custody.assign(tuple(tp) for tp in assigned)
        self._tell()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """1. What is settled so far is known. 2. Nothing more is settled. 3. It is committed, if that still works."""
        gone = {tuple(tp) for tp in revoked}
        settled = {partition: offset for partition, offset in self._custody.committable().items() if partition in gone}
        self._custody.drop(gone)
        self._tell()
        self._tell_gone(revoked)
        if settled:
            with suppress(KafkaError):  # uncommitted, the next owner scores it again, to the same events
                await self._consumer.commit_async(offsets_to_commit(settled))

    async def on_partitions_lost(self, lost: Collection[TopicPartition]) -> None:
        """Another's already: a commit would be refused."""
        self._custody.drop({tuple(tp) for tp in lost})
        self._tell()
        self._tell_gone(lost)

    def _tell(self) -> None:
        count = float(len(self._custody.partitions))
        self._hooks.happened(Happening.PARTITIONS_ASSIGNED, count, group=self._group)

    def _tell_gone(self, gone: Collection[TopicPartition]) -> None:
        """Their next owner tells how far behind they are: what we said last must not stand beside it."""
        for tp in gone:
            for gauge in (Happening.LAG_RECORDS, Happening.LAG_SECONDS):
                self._hooks.happened(gauge, nan, topic=tp.topic, partition=str(tp.partition))


def _close(consumer: Any) -> None:
    with suppress(KafkaError, OSError, RuntimeError):  # what it held is dropped and comes again
        consumer.close(autocommit=False, timeout_ms=_CLOSE_MS)
