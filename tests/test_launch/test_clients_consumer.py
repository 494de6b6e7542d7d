"""Consumers on real brokers: resume after pause, ends and starts of the log, one record by its place."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from contracts.errors import PeerAway, PeerRefused, PeerTimeout, SettingsError
from contracts.hooks import Silent
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients import consumer_call
from launch.clients.kafka_call import (
    KafkaLog,
    backlog_of,
    group_of,
    log_end,
    log_ends,
    log_start,
    make_consumer,
    read_record,
    topics_of,
)

RECORDS = 20


@pytest.fixture
def settings(broker: str, topic_prefix: str) -> KafkaSettings:
    """One broker, three partitions."""
    return settings_for(broker, topic_prefix)


def settings_for(bootstrap: str, prefix: str, *, cooperative: bool = True) -> KafkaSettings:
    """Settings for a single broker."""
    return KafkaSettings(
        bootstrap=bootstrap,
        topic_prefix=prefix,
        partitions=3,
        replication=1,
        min_insync=1,
        cooperative=cooperative,
    )


@pytest.fixture
def partitions(settings: KafkaSettings) -> list[TopicPartition]:
    """Two partitions with RECORDS records each and one empty, written without waiting, so that they lie in batches."""
    return fill(settings)


def fill(settings: KafkaSettings) -> list[TopicPartition]:
    """Writes the records; the last partition stays empty."""
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    futures = [log.append(Entry(topic, n % 2, b"key", b"%d" % (n // 2))) for n in range(2 * RECORDS)]
    for future in futures:
        future.result(20)
    log.close(5.0)
    return [TopicPartition(topic, number) for number in range(3)]


@pytest.fixture
def consumer(settings: KafkaSettings) -> Iterator[KafkaConsumer]:
    """A consumer without a group, that fetches every record at once."""
    made = make_consumer(settings, group=None)
    yield made
    made.close()


def poll_for(consumer: KafkaConsumer, seconds: float, **more: Any) -> Counter[TopicPartition]:
    """Records of each partition in that time, or until all RECORDS of a partition came."""
    got: Counter[TopicPartition] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until and RECORDS - 1 not in got.values():
        for tp, records in consumer.poll(timeout_ms=100, **more).items():
            got[tp] += len(records)
    return got


def pause_with_records_parked(consumer: KafkaConsumer, tps: list[TopicPartition]) -> TopicPartition:
    """Reads one record, pauses its partition with the others still buffered, reads the other to its end, resumes."""
    consumer.assign(tps[:2])
    first: dict[TopicPartition, Any] = {}
    while not first:
        first = consumer.poll(timeout_ms=200, max_records=1)
    [paused] = first
    consumer.pause(paused)
    other = 0
    while other < RECORDS:
        other += sum(len(records) for records in consumer.poll(timeout_ms=200).values())
    consumer.resume(paused)
    return paused


def test_a_resumed_partition_gives_the_records_that_were_buffered(
    consumer: KafkaConsumer, partitions: list[TopicPartition]
) -> None:
    """Fault 1: everything that was parked by a pause comes back after the resume, exactly once."""
    paused = pause_with_records_parked(consumer, partitions)
    assert poll_for(consumer, 10.0) == {paused: RECORDS - 1}


def test_without_the_guard_the_resumed_partition_stays_silent(
    settings: KafkaSettings, partitions: list[TopicPartition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault is still in this kafka-python: when this test fails, upstream mended it and the guard may go."""
    monkeypatch.setattr(consumer_call, "guard_resume", lambda _: None)
    unguarded = make_consumer(settings, group=None)
    try:
        pause_with_records_parked(unguarded, partitions)
        assert not poll_for(unguarded, 2.0)
    finally:
        unguarded.close()


def test_a_resumed_partition_takes_turns_with_a_busy_one(
    consumer: KafkaConsumer, partitions: list[TopicPartition]
) -> None:
    """Parked records need not wait until another partition has nothing more to give."""
    consumer.assign(partitions[:2])
    first: dict[TopicPartition, Any] = {}
    while not first:
        first = consumer.poll(timeout_ms=200, max_records=1)
    [paused] = first
    consumer.pause(paused)
    while not consumer.poll(timeout_ms=200, max_records=1):
        pass  # now the other partition is the current one, with records left
    consumer.resume(paused)
    order = [tp for _ in range(6) for tp in consumer.poll(timeout_ms=200, max_records=1)]
    assert set(order) == set(partitions[:2])


def test_the_end_of_the_log_counts_records_that_came_in_batches(
    consumer: KafkaConsumer, partitions: list[TopicPartition]
) -> None:
    """log_end is the next offset on both brokers: unassigned, paused, and for an empty partition."""
    assert log_ends(consumer, partitions) == dict(zip(partitions, (RECORDS, RECORDS, 0), strict=True))
    consumer.assign(partitions)
    consumer.pause(*partitions)
    assert log_end(consumer, partitions[0]) == RECORDS
    assert consumer.paused() == set(partitions)
    assert log_start(consumer, partitions[0]) == 0


def test_the_backlog_is_what_may_be_read_and_was_not(consumer: KafkaConsumer, partitions: list[TopicPartition]) -> None:
    """Backlog counts assigned partitions that are not paused: what the watchdog is fed with."""
    consumer.assign(partitions)
    seen: set[TopicPartition] = set()
    while len(seen) < 2:
        seen |= set(consumer.poll(timeout_ms=200, max_records=RECORDS // 2))
    left = backlog_of(consumer)
    assert sum(left.values()) in range(1, 2 * RECORDS)
    consumer.pause(*partitions)
    assert backlog_of(consumer) == {}


def test_one_record_is_read_by_its_place(settings: KafkaSettings, partitions: list[TopicPartition]) -> None:
    """Every place of a batch gives its own record."""
    for offset in (0, 7, RECORDS - 1):
        record = read_record(settings, Place(partitions[1].topic, 1, offset))
        assert (record.offset, record.value) == (offset, b"%d" % offset)


def test_a_place_beyond_the_end_is_refused(settings: KafkaSettings, partitions: list[TopicPartition]) -> None:
    """A record that was never there is an answer, not a wait."""
    with pytest.raises(PeerRefused):
        read_record(settings, Place(partitions[0].topic, 0, RECORDS + 5), timeout_s=5.0)


@pytest.mark.kafka
def test_a_place_in_a_topic_that_is_not_there_is_a_timeout(kafka_broker: str, topic_prefix: str) -> None:
    """Without an answer nobody may conclude that the record is gone."""
    with pytest.raises(PeerTimeout):
        read_record(settings_for(kafka_broker, topic_prefix), Place(f"{topic_prefix}nothing", 0, 0), timeout_s=1.0)


@pytest.mark.kafka
def test_a_deleted_record_is_refused_and_the_log_starts_later(kafka_broker: str, topic_prefix: str) -> None:
    """What retention took is told: log_start moved, read_record says gone (Apache Kafka: Tansu deletes nothing)."""
    settings = settings_for(kafka_broker, topic_prefix)
    tp = fill(settings)[0]
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    admin.delete_records({tp: 10})
    admin.close()
    with pytest.raises(PeerRefused):
        read_record(settings, Place(tp.topic, 0, 3))
    assert read_record(settings, Place(tp.topic, 0, 10)).value == b"10"
    consumer = make_consumer(settings, group=None)
    assert (log_start(consumer, tp), log_end(consumer, tp)) == (10, RECORDS)
    consumer.close()


@pytest.mark.kafka
@pytest.mark.parametrize("cooperative", [True, False])
def test_a_group_reads_all_and_commits_only_when_told(kafka_broker: str, topic_prefix: str, cooperative: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """Both assignors read every partition; what was not committed is read again by the next member."""
    settings = settings_for(kafka_broker, topic_prefix, cooperative=cooperative)
    topic = fill(settings)[0].topic
    for _ in range(2):
        member = make_consumer(settings, group=group_of(settings, "readers"))
        member.subscribe([topic])
        got = 0
        until = time.monotonic() + 120  # a group that forms on a busy machine; a partition nobody reads never comes
        while got < 2 * RECORDS and time.monotonic() < until:
            got += sum(len(records) for records in member.poll(timeout_ms=200).values())
        member.close(autocommit=False)
        assert got == 2 * RECORDS


def test_an_away_broker_is_told_and_leaves_no_thread(topic_prefix: str) -> None:
    """make_consumer raises PeerAway in time, and the client's thread and sockets are gone."""
    before = set(threading.enumerate())
    with pytest.raises(PeerAway):
        make_consumer(settings_for("127.0.0.1:1", topic_prefix), group=None)
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("kafka-io")]


class _Forgetful:
    """A consumer whose broker does not know every topic yet, or knows one with another count."""

    def __init__(self, known: dict[str, int]) -> None:
        self._known = known

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._known[topic])) if topic in self._known else None


def test_no_group_is_joined_before_all_its_topics_are_known() -> None:
    """A group that is formed earlier gives nobody a partition: the peer counts as away until then."""
    with pytest.raises(PeerAway):
        consumer_call._check_known(_Forgetful({"scans.stat": 3}), ["scans.stat", "scans.routine"])
    consumer_call._check_known(_Forgetful({"scans.stat": 3, "scans.routine": 3}), ["scans.stat", "scans.routine"])
    with pytest.raises(SettingsError):
        consumer_call._check_known(_Forgetful({"scans.stat": 3, "scans.routine": 4}), ["scans.stat", "scans.routine"])


@pytest.mark.kafka
def test_a_member_waits_while_the_cluster_has_too_few_brokers_for_its_topics(
    kafka_broker: str, topic_prefix: str
) -> None:
    """A cluster that comes up broker by broker must not end its readers."""
    settings = settings_for(kafka_broker, topic_prefix).model_copy(update={"replication": 3})
    with pytest.raises(PeerAway):
        make_consumer(settings, group=group_of(settings, "readers"), topics=[topics_of(settings).audit])


def joined(settings: KafkaSettings, topic: str) -> KafkaConsumer:
    """A member made for a topic that nobody has created, once it owns a partition."""
    member = make_consumer(settings, group=group_of(settings, "readers"), topics=[topic])
    member.subscribe([topic])
    until = time.monotonic() + 30
    while not member.assignment() and time.monotonic() < until:
        member.poll(timeout_ms=100)
    return member


@contextmanager
def polled(*members: KafkaConsumer) -> Iterator[None]:
    """Each in a thread of its own, as in a process of its own."""
    stop = threading.Event()

    def turn(member: KafkaConsumer) -> None:
        while not stop.is_set():
            member.poll(timeout_ms=50)

    turning = [threading.Thread(target=turn, args=(member,)) for member in members]
    for thread in turning:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in turning:
            thread.join(30)


def settle(members: Sequence[KafkaConsumer], wait_s: float = 90.0) -> None:
    """Until all are members, one shared out, and nobody asked for another rebalance for a while."""
    until = time.monotonic() + wait_s
    quiet_since = time.monotonic()
    while time.monotonic() < quiet_since + 3:
        assert time.monotonic() < until, "the group never settles"
        coordinators = [member._coordinator for member in members]
        if not all(one.stable() and not one.need_rejoin() for one in coordinators) or (
            [one._is_leader for one in coordinators].count(True) != 1
        ):
            quiet_since = time.monotonic()
        time.sleep(0.02)


def test_a_member_alone_that_was_given_nothing_counts_what_nobody_reads(settings: KafkaSettings) -> None:
    """A consumer whose assignment stays empty though nobody else is there has a backlog, for its watchdog to notice."""
    member = joined(settings, topics_of(settings).audit)
    try:
        assert len(member.assignment()) == settings.partitions, "the topic was made for it"
        assert not any(backlog_of(member).values())
        member._subscription.assign_from_subscribed([])
        assert list(backlog_of(member).values()) == [1] * settings.partitions
    finally:
        member.close(autocommit=False)


@pytest.mark.kafka
def test_a_member_beside_others_may_have_nothing(kafka_broker: str, topic_prefix: str) -> None:
    """With more members than partitions somebody idles, which is no fault."""
    settings = settings_for(kafka_broker, topic_prefix)
    topic = topics_of(settings).audit
    other = joined(settings, topic)
    member = make_consumer(settings, group=group_of(settings, "readers"), topics=[topic])
    try:
        member.subscribe([topic])
        with polled(other):
            until = time.monotonic() + 60
            while not 0 < len(member.assignment()) < settings.partitions and time.monotonic() < until:
                member.poll(timeout_ms=100)
        assert 0 < len(member.assignment()) < settings.partitions
        member._subscription.assign_from_subscribed([])
        assert not any(backlog_of(member).values())
    finally:
        member.close(autocommit=False)
        other.close(autocommit=False)


@pytest.mark.kafka
@pytest.mark.parametrize("guarded", [True, False])
def test_two_that_were_thrown_out_claim_nothing_they_lost(
    kafka_broker: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """Both had all partitions once, and lose their membership: with the guard all are read again. Without it the
    library waits for owners that do not exist, and the member that shared them out counts what nobody reads.
    """
    if not guarded:
        monkeypatch.setattr(consumer_call, "guard_claims", lambda _: None)
    settings = settings_for(kafka_broker, topic_prefix)
    topic = topics_of(settings).audit
    every = {TopicPartition(topic, number) for number in range(settings.partitions)}
    both = [make_consumer(settings, group=group_of(settings, "readers"), topics=[topic]) for _ in range(2)]
    try:
        for one in both:
            one.subscribe([topic])
        with polled(*both):
            settle(both)
        for one in both:  # what the library's own state is after each was alone for a while, and was then thrown out
            one._coordinator._assignors["cooperative-sticky"].member_assignment = sorted(every)
            one._coordinator.reset_generation()
        with polled(*both):
            settle(both)
        had = [tp for one in both for tp in one.assignment()]
        waiting = [tp for one in both for tp, records in backlog_of(one).items() if records]
        assert {*had, *waiting} == every
        assert len(had) + len(waiting) == len(every), "nothing twice"
        assert bool(waiting) is not guarded
    finally:
        for one in both:
            one.close(autocommit=False)


def rarely(member: KafkaConsumer, partitions: int, wait_s: float) -> int:
    """Polls as a worker does that has much to do in between: briefly, long apart. How many partitions it has then."""
    until = time.monotonic() + wait_s
    while len(member.assignment()) < partitions and time.monotonic() < until:
        member.poll(timeout_ms=1)
        time.sleep(0.3)
    return len(member.assignment())


@pytest.mark.kafka
@pytest.mark.parametrize("guarded", [True, False])
def test_a_join_that_ends_between_two_polls_counts(
    kafka_broker: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch, *, guarded: bool
) -> None:
    """A member that polls rarely gets its partitions, and those that are added. Without the guard it never does."""
    settings = settings_for(kafka_broker, topic_prefix)
    topic = topics_of(settings).audit
    more = settings.partitions + 2
    if not guarded:
        monkeypatch.setattr(consumer_call, "guard_joins", lambda _: None)
    group, age_ms = group_of(settings, "readers"), {"metadata_max_age_ms": 500}
    member = make_consumer(settings, group=group, topics=[topic], **age_ms)
    member.subscribe([topic])
    admin = KafkaAdminClient(bootstrap_servers=kafka_broker)
    try:
        had = rarely(member, settings.partitions, 60 if guarded else 6)
        assert had == (settings.partitions if guarded else 0)
        while not (member.assignment() and member._coordinator.stable() and not member._coordinator.need_rejoin()):
            member.poll(timeout_ms=500)
        admin.create_partitions({topic: more})
        assert rarely(member, more, 60 if guarded else 6) == (more if guarded else settings.partitions)
    finally:
        admin.close()
        member.close(autocommit=False)
