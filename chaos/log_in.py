"""Reads what lies on ``study.events``, ``study.audit`` and ``scans.dead`` now."""

import time
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from chaos.logged import LogTold
from contracts.names import Topics

POLL_MS = 300
LIMIT_S = 60.0


class LogUnread(Exception):
    """The end was not reached in time."""


def read_log(bootstrap: str, topics: Topics) -> LogTold:
    """All three topics from their beginning to their end as it is now. Raises LogUnread."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=100, enable_auto_commit=False)
    try:
        events = [record.key for record in _records(consumer, topics.events)]
        audit = [record.value for record in _records(consumer, topics.audit)]
        letters = [record.headers for record in _records(consumer, topics.dead)]
    finally:
        consumer.close()
    return LogTold.of(events, audit, letters)


def _records(consumer: Any, topic: str) -> Iterator[Any]:
    places = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
    if not places:
        raise LogUnread(f"{topic} is not there")
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    limit_s = time.monotonic() + LIMIT_S
    while any(consumer.position(place) < end for place, end in ends.items()):
        if time.monotonic() > limit_s:
            raise LogUnread(f"{topic} could not be read to its end in {LIMIT_S:.0f} s")
        for records in consumer.poll(timeout_ms=POLL_MS).values():
            yield from records
