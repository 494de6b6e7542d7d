"""Flagging: settings → log, consumer, store and the loop that owns partitions."""

import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from contracts.hooks import Hooks
from contracts.names import FLAGGING_GROUP
from contracts.ports import Service
from contracts.settings import Settings
from launch.clients.kafka_call import (
    WATCHDOG_S,
    KafkaLog,
    Watchdog,
    backlog_of,
    group_of,
    log_ends,
    log_id,
    make_consumer,
    topics_of,
)
from launch.clients.redis_call import make_redis, mapped
from worker.flagging.audit_out import Audit
from worker.flagging.kafka_in import EventsIn
from worker.flagging.owner_out import Owner
from worker.flagging.redis_out import RedisView
from worker.flagging.service import FlaggingService
from worker.flagging.timers_in import Timers


def build(settings: Settings, hooks: Hooks) -> list[Service]:
    """One service. Raises SettingsError."""
    topics, rules = topics_of(settings.kafka), settings.flagging
    log = KafkaLog(settings.kafka, hooks)
    store = RedisView(settings.redis, rules, make_redis(settings.redis), mapped)
    audit = Audit(log, topics.audit)

    def owner(number: int) -> Owner:
        return Owner(number, store, audit, Timers(log, topics.events, number, rules), rules, hooks)

    group = group_of(settings.kafka, FLAGGING_GROUP)
    consumer = partial(make_consumer, settings.kafka, group=group, topics=[topics.events])
    source = EventsIn(topics.events, consumer, log_ends, log_id, _Stuck())
    return [FlaggingService(source, store, owner, log, hooks, time.monotonic)]


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
