"""Flagging: settings → log, consumer, store and the loop that owns partitions."""

import time
from functools import partial

from contracts.hooks import Hooks
from contracts.names import FLAGGING_GROUP
from contracts.ports import Service
from contracts.settings import Settings
from launch.clients.kafka_call import (
    KafkaLog,
    Stuck,
    backlog_of,
    group_of,
    log_ends,
    log_id,
    make_consumer,
    mapped,
    topics_of,
)
from launch.clients.redis_call import make_redis
from launch.clients.redis_call import mapped as store_mapped
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
    store = RedisView(settings.redis, rules, make_redis(settings.redis), store_mapped)
    audit = Audit(log, topics.audit)

    def owner(number: int) -> Owner:
        return Owner(number, store, audit, Timers(log, topics.events, number, rules), rules, hooks)

    group = group_of(settings.kafka, FLAGGING_GROUP)
    consumer = partial(make_consumer, settings.kafka, group=group, topics=[topics.events])
    source = EventsIn(topics.events, consumer, log_ends, log_id, Stuck(backlog_of), mapped)
    return [FlaggingService(source, store, owner, log, hooks, time.monotonic)]
