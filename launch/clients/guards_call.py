"""Guards against kafka-python 3.0.12, put into each consumer as it is made (docs/decisions/0003-kafka-python.md).

``guard_resume`` is for every consumer, the others are for members of a group. They touch private names, for want of
public ones. tests/test_launch/test_clients_consumer.py runs with and without them, and fails on the day that the
library mends what they mend.
"""

import functools
from collections.abc import Iterable
from types import MethodType
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import Fetcher


def guard_resume(consumer: KafkaConsumer) -> None:
    """Mends the fetcher of this consumer: records parked by ``pause()`` come back after ``resume()``.

    The fetcher gives parked records back only while its current records are ``None``; drained records are false, but
    not ``None``, so they block the way for ever; and records that are never drained (a busy other partition) would
    block it for long. The guard clears the first and takes turns with the second.
    """
    fetcher: Fetcher = consumer._fetcher  # noqa: SLF001  # no public way; tests/test_launch fails without it
    inner = fetcher.fetched_records

    @functools.wraps(inner)
    def fetched_records(self: Fetcher, *args: Any, **given: Any) -> Any:
        current, parked = self._next_partition_records, self._paused_partition_records
        if not current:
            self._next_partition_records = None
        elif any(not self._subscriptions.is_paused(tp) for tp in parked):
            parked[current.topic_partition] = current
            self._next_partition_records = None
        return inner(*args, **given)

    fetcher.fetched_records = MethodType(fetched_records, fetcher)


def guard_claims(consumer: KafkaConsumer) -> None:
    """Makes the consumer claim, when it joins its group, what it has.

    The sticky assignor claims what it was given last, also after it was thrown out and lost it. Two that claim one
    partition, and have it not, wait for each other to let it go, for ever: nobody reads it. What its subscription
    holds (as in the Java client) is given to it again, or it lets it go and asks for another rebalance.
    """
    coordinator = consumer._coordinator  # noqa: SLF001  # no public way; tests/test_launch fails without it
    inner = coordinator.group_protocols

    @functools.wraps(inner)
    def group_protocols() -> Any:
        held = sorted(consumer._subscription.assigned_partitions())  # noqa: SLF001  # as above
        for assignor in coordinator._assignors.values():  # noqa: SLF001  # as above
            assignor.member_assignment = held  # the range assignor claims nothing, and has no use for it
        return inner()

    coordinator.group_protocols = group_protocols


class _Join:
    """A join under way: done, for whoever asks whether to begin another, only once it failed or came to nothing."""

    def __init__(self, future: Any, coordinator: Any) -> None:
        self._future, self._coordinator = future, coordinator

    @property
    def is_done(self) -> bool:
        """Whether its result is of no more use."""
        return self._future.is_done and not (self._future.succeeded() and self._coordinator.rebalance_in_progress())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._future, name)


class _Joins:
    """The coordinator's way to the event loop: joins that it starts are ``_Join``."""

    def __init__(self, manager: Any, coordinator: Any) -> None:
        self._manager, self._coordinator = manager, coordinator

    def call_soon(self, coro: Any, *args: Any) -> Any:
        """As the manager's."""
        future = self._manager.call_soon(coro, *args)
        joins = coro == self._coordinator._do_join_and_sync_async  # noqa: SLF001  # as above
        return _Join(future, self._coordinator) if joins else future

    def __getattr__(self, name: str) -> Any:
        return getattr(self._manager, name)


def guard_joins(consumer: KafkaConsumer) -> None:
    """Makes a join count that outlasted the poll that began it.

    A poll waits for the join that is under way, no longer than it may. (1) Where it ended before the next poll, that
    one begins another and drops what came of it: a worker that has much to do between its polls never gets a
    partition, and has the whole group share them out again and again. (2) Where it was begun for new metadata, which
    it has taken note of by then, the next poll sees no need to go on: the member waits outside its group for ever.
    """
    coordinator = consumer._coordinator  # noqa: SLF001  # as above
    coordinator._manager = _Joins(coordinator._manager, coordinator)  # noqa: SLF001  # as above
    inner = coordinator.need_rejoin

    @functools.wraps(inner)
    def need_rejoin() -> bool:
        return coordinator._join_task is not None or inner()  # noqa: SLF001  # as above

    coordinator.need_rejoin = need_rejoin


def guard_shares(consumer: KafkaConsumer) -> None:
    """Makes the consumer remember what it gave to how many members, when it was the one to share the partitions out."""
    coordinator = consumer._coordinator  # noqa: SLF001  # as above
    inner = coordinator._perform_assignment  # noqa: SLF001  # as above

    @functools.wraps(inner)
    def perform_assignment(leader_id: str, protocol_name: str, members: Any) -> Any:
        shares = inner(leader_id, protocol_name, members)
        coordinator.triage_members = len(shares)
        coordinator.triage_given = {tp for share in shares.values() for tp in share.partitions()}
        return shares

    coordinator._perform_assignment = perform_assignment  # noqa: SLF001  # as above


def left_out(consumer: KafkaConsumer) -> set[TopicPartition]:
    """Partitions of its topics that nobody has, as this consumer knows where it was the one to share them out."""
    coordinator = consumer._coordinator  # noqa: SLF001  # as above
    if not (coordinator._is_leader and coordinator.stable()):  # noqa: SLF001  # as above
        return set()  # another shared them out, or they are still being shared out
    given = coordinator.triage_given if coordinator.triage_members > 1 else set(consumer.assignment())
    topics = consumer.subscription() or ()
    every = {TopicPartition(topic, number) for topic in topics for number in _numbers(consumer, topic)}
    return every - given


def _numbers(consumer: KafkaConsumer, topic: str) -> Iterable[int]:
    """The topic's partitions as the client knows them; asks nobody."""
    return consumer._cluster.partitions_for_topic(topic) or ()  # noqa: SLF001  # the public way may block
