"""Storage commitment: settings → its topic, its index and its reports, for the producer."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from contracts.hooks import Hooks
from contracts.names import COMMITMENT_GROUP
from contracts.ports import Log
from contracts.settings import Settings
from launch.clients.kafka_call import (
    WATCHDOG_S,
    Watchdog,
    backlog_of,
    group_of,
    log_ends,
    make_consumer,
    topics_of,
)
from producer.commitment_desk import Desk
from producer.commitment_in import Append, CommitmentRequests
from producer.commitment_index_in import Broker, Index
from producer.commitment_log_in import CommitmentLog
from producer.commitment_out import Association, Caller
from producer.commitment_reports import Reports, Rules
from producer.commitment_service import Commitment
from producer.commitment_table_call import Table
from producer.stamp_call import monotonic_s, now_s

SETTLE_S = 0.5  # a requestor that hangs up after its request does so within that time: it is called, not raced


@dataclass(frozen=True, slots=True)
class Parts:
    """What the producer needs: an offer for the DICOM door, a door of its own, and an index that hears of Success."""

    offer: CommitmentRequests
    door: Commitment
    index: Index


def build(settings: Settings, log: Log, hooks: Hooks) -> Parts:
    """The parts of storage commitment."""
    doors, topic = settings.producer, topics_of(settings.kafka).commitments
    desk = Desk(monotonic_s, SETTLE_S, doors.commitment_pending_bytes)
    append = Append(log, topic, desk, settings.kafka.ack_timeout_s)
    table = Table(doors.commitment_index)
    index = Index(_broker(settings), table, hooks)
    group = group_of(settings.kafka, COMMITMENT_GROUP)
    member = partial(make_consumer, settings.kafka, group=group, topics=[topic], client_id="triage-commitment")
    reader = CommitmentLog(topic, member, log_ends, _Stuck(), desk, hooks)
    peers = {title.strip(): address for title, address in doors.commitment_peers.items()}
    rules = Rules(peers, doors.commitment_wait_s, doors.commitment_retry_s)
    ends = lambda partition, key: append.to(partition, key, None)  # noqa: E731 - a tombstone, in one word
    reports = Reports(desk, index, Caller(doors.ae_title), ends, rules, hooks, now_s)
    offer = CommitmentRequests(doors, desk, append, Association, hooks)
    return Parts(offer, Commitment([reader.run, index.run], reports, table.close), index)


def _broker(settings: Settings) -> Broker:
    kafka = settings.kafka
    return Broker(
        consumer=partial(make_consumer, kafka, group=None, topics=topics_of(kafka).all, client_id="triage-index"),
        log_ends=log_ends,
        topics=topics_of(kafka),
        scan_retention_s=kafka.scan_retention_s,
        keeps=not kafka.memory_only,
    )


class _Stuck:
    """The watchdog beside the consumer; a new consumer starts with a new patience."""

    def __init__(self) -> None:
        self._watchdog = Watchdog(WATCHDOG_S, time.monotonic)

    def __call__(self, consumer: Any, delivered: Iterable[Any]) -> bool:
        """Whether a partition that has records, and may be read, gave nothing for long."""
        self._watchdog.delivered(delivered)
        if not self._watchdog.stuck(backlog_of(consumer)):
            return False
        self._watchdog = Watchdog(WATCHDOG_S, time.monotonic)
        return True
