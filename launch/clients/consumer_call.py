"""Consumers: made in one place, with the guards against kafka-python 3.0.12.

A member of a group is made for its topics, and only once these exist and its client knows them: a group that is formed
earlier gives nobody a partition, for minutes.

Loops that own a consumer keep a ``Watchdog`` beside it (launch/clients/watchdog.py):

    watchdog = Watchdog(WATCHDOG_S, time.monotonic)
    for records in polls:
        watchdog.delivered(records)                         # TopicPartitions that gave something
        if watchdog.stuck(backlog_of(consumer)):            # assigned, not paused, records known to wait
            consumer.close(autocommit=False); consumer = make_consumer(…)
"""

import time
from collections.abc import Iterable
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor

from contracts.deadline import Deadline
from contracts.errors import PeerAway, PeerRefused, PeerTimeout, SettingsError
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.connect_call import PEER, client_config, mapped, opened
from launch.clients.guards_call import guard_claims, guard_joins, guard_resume, guard_shares, left_out
from launch.clients.line_call import RECORD_OVERHEAD_BYTES
from launch.clients.topics_call import create_missing, one_count

FETCH_BYTES = 16 * 1024**2  # per partition and request; more only delays the other partitions
HEARTBEATS_PER_SESSION = 6  # 1 s heartbeats in a session of 6 s: several may be lost
# A topic made a moment ago may be unknown to the broker that answers when a group is formed; the group then gets no
# partitions until the next look, which kafka-python would take after five minutes.
METADATA_AGE_MS = 5_000
BRIEF: dict[str, Any] = {  # for consumers that live for one question
    "client_id": "triage-brief",
    "max_partition_fetch_bytes": 1,  # a broker gives one whole batch all the same
    "retry_backoff_ms": 5,  # kafka-python waits that long for its first metadata: 100 ms, twice, by default
}
PROBE_WAIT_MS = 1  # a probe wants the answer, not the records
PROBE_TIMEOUT_S = 5.0
PROBE_POLL_MS = 5  # a poll that waits for metadata sleeps to its end
READ_TIMEOUT_S = 10.0


def consumer_config(settings: KafkaSettings) -> dict[str, Any]:
    """Offsets are committed by the rooms alone; nothing is skipped when there is no offset."""
    session_ms = int(settings.session_timeout_s * 1000)
    assignor = CooperativeStickyAssignor if settings.cooperative else RangePartitionAssignor
    return client_config(settings) | {
        "client_id": "triage-reader",
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": max(FETCH_BYTES, settings.max_record_bytes + RECORD_OVERHEAD_BYTES),
        "fetch_max_wait_ms": settings.fetch_max_wait_ms,
        "metadata_max_age_ms": METADATA_AGE_MS,
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": max(1, session_ms // HEARTBEATS_PER_SESSION),
        "partition_assignment_strategy": [assignor],
    }


def make_consumer(
    settings: KafkaSettings, *, group: str | None, topics: Iterable[str] = (), **overrides: Any
) -> KafkaConsumer:
    """A consumer with the guards. ``group`` None: positions are the caller's own, with ``assign``.

    ``topics`` are those it will subscribe to; they exist and are known to it when this returns. ``overrides`` are
    kafka-python's own settings. Blocks for up to BOOTSTRAP_MS; raises PeerError, and SettingsError where the topics
    differ in their partitions.
    """
    wanted = list(topics)
    if wanted:
        _create_missing(settings)
    consumer = opened(KafkaConsumer, consumer_config(settings) | {"group_id": group} | overrides)
    try:
        with mapped():
            _check_known(consumer, wanted)
    except Exception:
        consumer.close(autocommit=False)
        raise
    guard_resume(consumer)
    if group is not None:
        guard_claims(consumer)
        guard_joins(consumer)
        guard_shares(consumer)
    return consumer


def _create_missing(settings: KafkaSettings) -> None:
    """Asking for a topic by name could create it otherwise, with the broker's own partition count.

    A cluster that is coming up has too few brokers for a while: a member waits, and the producer tells whoever has to
    know that a topic cannot be created.
    """
    try:
        create_missing(settings)
    except SettingsError as problem:
        raise PeerAway(PEER, "topics are missing and cannot be created") from problem


def _check_known(consumer: KafkaConsumer, topics: list[str]) -> None:
    counts = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in topics}
    if unknown := [topic for topic, count in counts.items() if not count]:
        raise PeerAway(PEER, f"not known yet: {', '.join(unknown)}")
    if counts:
        one_count(counts)


def backlog_of(consumer: KafkaConsumer) -> dict[TopicPartition, int]:
    """Records known to wait, by assigned partition that is not paused, from the last fetch; asks nobody.

    Where this consumer shared out the group's partitions, one that nobody was given counts as one record that waits:
    nobody will read it.
    """
    with mapped():
        active = consumer.assignment() - consumer.paused()
        ends = {tp: consumer.highwater(tp) for tp in active}
        waiting = {tp: max(0, end - (consumer.position(tp) or 0)) for tp, end in ends.items() if end is not None}
        return waiting | dict.fromkeys(left_out(consumer), 1)


def log_start(consumer: KafkaConsumer, tp: TopicPartition) -> int:
    """The offset of the oldest record still kept: beyond a committed offset, records were lost. Raises PeerError."""
    with mapped():
        return int(consumer.beginning_offsets([tp], timeout_ms=int(PROBE_TIMEOUT_S * 1000))[tp])


def log_id(consumer: KafkaConsumer, topic: str) -> str:
    """The id that the broker gave the topic when it was made (KIP-516), as old as the metadata; "" where none is told.

    Offsets mean something only together with it: a topic that was made anew starts at 0, and may have grown since.
    """
    known = consumer._cluster.topic_id(topic)  # noqa: SLF001  # no public way; tests/test_launch fails without it
    return "" if known is None or known.int == 0 else str(known)


def log_end(consumer: KafkaConsumer, tp: TopicPartition) -> int:
    """The offset that the next record will get. Raises PeerError."""
    return log_ends(consumer, [tp])[tp]


def log_ends(consumer: KafkaConsumer, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
    """The ends of several partitions, right on every broker. The consumer itself is left as it is.

    Tansu's answer to ListOffsets counts batches, not records, so a short-lived probe fetches at that place: the high
    watermark that comes with a fetch is right on Tansu and on Apache Kafka.
    """
    wanted = list(tps)
    probe = _probe(consumer)
    try:
        with mapped():
            starts = probe.end_offsets(wanted)
            probe.assign(wanted)
            for tp in wanted:
                probe.seek(tp, starts[tp])
            return _highwaters(probe, wanted)
    finally:
        probe.close(autocommit=False)


def _probe(consumer: KafkaConsumer) -> KafkaConsumer:
    """A consumer like the given one, outside its group, that asks for as little as it can."""
    kept = {name: value for name, value in consumer.config.items() if name.startswith(("ssl_", "sasl_", "security_"))}
    config = kept | {
        "bootstrap_servers": consumer.config["bootstrap_servers"],
        "bootstrap_timeout_ms": consumer.config["bootstrap_timeout_ms"],
        "group_id": None,
        "enable_auto_commit": False,
        "fetch_max_wait_ms": PROBE_WAIT_MS,
    }
    return opened(KafkaConsumer, config | BRIEF)


def _highwaters(probe: KafkaConsumer, tps: list[TopicPartition]) -> dict[TopicPartition, int]:
    deadline = Deadline.after(PROBE_TIMEOUT_S, time.monotonic)
    while not deadline.expired():
        probe.poll(timeout_ms=PROBE_POLL_MS, max_records=1)
        ends = {tp: probe.highwater(tp) for tp in tps}
        known = {tp: end for tp, end in ends.items() if end is not None}
        if len(known) == len(tps):
            return known
        probe.pause(*known)  # answered: leave the next fetch to the others
    raise PeerTimeout(PEER, "the end of a partition is not told")


def read_record(settings: KafkaSettings, place: Place, timeout_s: float = READ_TIMEOUT_S) -> Any:
    """The ConsumerRecord at a place. Raises PeerRefused where it is gone (retention, compaction), else PeerError."""
    reader = make_consumer(settings, group=None, auto_offset_reset="none", **BRIEF)
    try:
        with mapped():
            return _read(reader, place, Deadline.after(timeout_s, time.monotonic))
    finally:
        reader.close(autocommit=False)


def appended_s(settings: KafkaSettings, place: Place) -> float:
    """When the broker took the record at a place, epoch seconds. Raises as ``read_record``, but waits less."""
    return float(read_record(settings, place, PROBE_TIMEOUT_S).timestamp) / 1000


def _read(reader: KafkaConsumer, place: Place, deadline: Deadline) -> Any:
    tp = TopicPartition(place.topic, place.partition)
    reader.assign([tp])
    reader.seek(tp, place.offset)
    while not deadline.expired():
        for record in reader.poll(timeout_ms=PROBE_POLL_MS, max_records=1).get(tp, ()):
            return _exactly(record, place)
        end = reader.highwater(tp)
        if end is not None and end <= place.offset:
            raise PeerRefused(PEER, f"the log ends before {place.topic}:{place.partition}:{place.offset}")
    raise PeerTimeout(PEER, f"no answer for {place.topic}:{place.partition}:{place.offset}")


def _exactly(record: Any, place: Place) -> Any:
    if record.offset != place.offset:
        raise PeerRefused(PEER, f"the record at {place.topic}:{place.partition}:{place.offset} is gone")
    return record
