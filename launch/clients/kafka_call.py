"""The broker's clients, by the names the wiring uses."""

from launch.clients.connect_call import group_of, mapped, peer_error, topics_of
from launch.clients.consumer_call import (
    appended_s,
    backlog_of,
    log_end,
    log_ends,
    log_id,
    log_start,
    make_consumer,
    read_record,
)
from launch.clients.log_call import KafkaLog
from launch.clients.topics_call import check, ensure_topics, partition_count, scans_kept_s
from launch.clients.watchdog import WATCHDOG_S, Stuck, Watchdog

__all__ = [
    "WATCHDOG_S",
    "KafkaLog",
    "Stuck",
    "Watchdog",
    "appended_s",
    "backlog_of",
    "check",
    "ensure_topics",
    "group_of",
    "log_end",
    "log_ends",
    "log_id",
    "log_start",
    "make_consumer",
    "mapped",
    "partition_count",
    "peer_error",
    "read_record",
    "scans_kept_s",
    "topics_of",
]
