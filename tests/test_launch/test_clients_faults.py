"""The durable log while its broker is killed, frozen, restarted empty, or says no."""

import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from contracts.errors import PeerAway, PeerError, PeerRefused
from contracts.hooks import Silent
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.kafka_call import KafkaLog, log_ends, make_consumer, partition_count, topics_of
from launch.clients.line_call import Line
from launch.stack.apache_kafka import ApacheKafka
from launch.stack.part import ProgramMissing
from launch.stack.tansu import Tansu

ACK_TIMEOUT_S = 4.0
LATE_S = 10.0  # allowed beyond the timeout, on a busy machine: a client that hangs would take for ever


@pytest.fixture(scope="module")
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApacheKafka]:
    """An Apache Kafka that may be killed."""
    server = ApacheKafka(tmp_path_factory.mktemp("own-kafka"))
    try:
        server.start()
    except ProgramMissing as problem:
        if os.environ.get("CI", "").lower() == "true":
            raise
        pytest.skip(str(problem))
    yield server
    server.close()


def settings_for(bootstrap: str, prefix: str, ack_timeout_s: float = ACK_TIMEOUT_S) -> KafkaSettings:
    """Settings for a single broker."""
    return KafkaSettings(
        bootstrap=bootstrap,
        topic_prefix=prefix,
        partitions=2,
        replication=1,
        min_insync=1,
        ack_timeout_s=ack_timeout_s,
    )


class Writer(threading.Thread):
    """Appends numbered records until told to stop, as a producer under load does, and keeps every future."""

    def __init__(self, log: KafkaLog, topic: str) -> None:
        super().__init__(daemon=True)
        self._log = log
        self._topic = topic
        self.stop = threading.Event()
        self.futures: list[Future[Place]] = []
        self.took_s: list[float] = []

    def run(self) -> None:
        """Two hundred records a second."""
        for number in itertools.count():
            if self.stop.wait(0.005):
                return
            began = time.monotonic()
            future = self._log.append(Entry(self._topic, number % 2, b"key", b"%d" % number))
            future.add_done_callback(partial(self._took, began))
            self.futures.append(future)

    def _took(self, began: float, _: Future[Place]) -> None:
        self.took_s.append(time.monotonic() - began)


def append_until_acknowledged(log: KafkaLog, topic: str, seconds: float) -> Place:
    """What a caller with retries does. Fails the test when the log does not come back."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            return log.append(Entry(topic, 0, b"key", b"after")).result(ACK_TIMEOUT_S + LATE_S)
        except PeerError:
            time.sleep(0.2)
    pytest.fail("the log did not come back")


def held(settings: KafkaSettings, topic: str) -> Counter[bytes]:
    """How often each value lies in the topic."""
    consumer = make_consumer(settings, group=None)
    tps = [TopicPartition(topic, number) for number in range(2)]
    counted: Counter[bytes] = Counter()
    try:
        ends = log_ends(consumer, tps)
        consumer.assign(tps)
        while any(consumer.position(tp) < ends[tp] for tp in tps):
            for records in consumer.poll(timeout_ms=200).values():
                counted.update(record.value for record in records)
    finally:
        consumer.close()
    return counted


@pytest.mark.kafka
def test_every_acknowledged_record_is_there_once_after_a_kill_and_a_restart(
    own_kafka: ApacheKafka, topic_prefix: str
) -> None:
    """Broker killed under load: what was acknowledged lies in the log exactly once, the rest failed in time."""
    settings = settings_for(own_kafka.bootstrap, topic_prefix)
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    assert log.wait_up(120)
    writer = Writer(log, topic)
    writer.start()
    time.sleep(1.0)
    own_kafka.kill()
    time.sleep(ACK_TIMEOUT_S + 1.0)  # longer than any caller waits
    own_kafka.start()
    append_until_acknowledged(log, topic, 30.0)
    time.sleep(0.5)
    writer.stop.set()
    writer.join()
    results = [future.exception(ACK_TIMEOUT_S + LATE_S) for future in writer.futures]
    acknowledged = [b"%d" % number for number, problem in enumerate(results) if problem is None]
    failed = [problem for problem in results if problem is not None]
    log.close(5.0)
    counted = held(settings, topic)
    assert [counted[value] for value in acknowledged] == [1] * len(acknowledged)
    assert results[0] is None
    assert results[-1] is None
    assert failed
    assert all(isinstance(problem, PeerError) and problem.retriable for problem in failed)
    assert max(writer.took_s) < ACK_TIMEOUT_S + LATE_S


@pytest.mark.kafka
def test_a_broker_back_before_the_timeout_costs_no_caller_anything(own_kafka: ApacheKafka, topic_prefix: str) -> None:
    """A restart within ack_timeout_s is ridden out: every append is acknowledged, exactly once."""
    settings = settings_for(own_kafka.bootstrap, topic_prefix, ack_timeout_s=40.0)
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    assert log.wait_up(120)
    futures = [log.append(Entry(topic, number % 2, b"key", b"%d" % number)) for number in range(100)]
    own_kafka.kill()
    futures += [log.append(Entry(topic, number % 2, b"key", b"%d" % number)) for number in range(100, 200)]
    own_kafka.start()
    assert all(isinstance(future.result(40), Place) for future in futures)
    log.close(5.0)
    assert held(settings, topic) == Counter(b"%d" % number for number in range(200))


@pytest.mark.kafka
def test_a_frozen_broker_fails_its_callers_in_time_and_is_used_again(own_kafka: ApacheKafka, topic_prefix: str) -> None:
    """Fault 2: whatever a hanging client keeps, callers are told in time and its producer is replaced."""
    settings = settings_for(own_kafka.bootstrap, topic_prefix)
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    assert log.wait_up(120)
    line = log._line
    os.kill(own_kafka.pid, signal.SIGSTOP)
    try:
        futures = [log.append(Entry(topic, number % 2, b"key", bytes(1000))) for number in range(300)]
        assert not futures[0].done(), "an append waits for nobody"
        problems = [future.exception(ACK_TIMEOUT_S + LATE_S) for future in futures]
        assert all(isinstance(problem, PeerError) and problem.retriable for problem in problems)
    finally:
        os.kill(own_kafka.pid, signal.SIGCONT)
    append_until_acknowledged(log, topic, 30.0)
    assert isinstance(line, Line)
    assert log._line is not line
    wait_while(line._producer._sender.is_alive, 60.0)  # kafka-python's own close() leaves it sending for ever
    assert log._buffered_bytes == 0
    log.close(5.0)


def lower_the_limit(bootstrap: str, topic: str) -> None:
    """An operator makes the topic take less than we may send."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "20000"})])
    admin.close()


@pytest.mark.kafka
def test_a_record_too_large_for_the_broker_is_refused_and_the_next_is_taken(
    own_kafka: ApacheKafka, topic_prefix: str
) -> None:
    """Fault 3: the broker's own refusal makes the producer unusable; it is replaced, and only that record fails."""
    settings = settings_for(own_kafka.bootstrap, topic_prefix)
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    assert log.wait_up(120)
    lower_the_limit(own_kafka.bootstrap, topic)
    line = log._line
    assert isinstance(log.append(Entry(topic, 0, b"key", bytes(50_000))).exception(10), PeerRefused)
    append_until_acknowledged(log, topic, 20.0)
    assert log._line is not line
    log.close(5.0)


@pytest.mark.kafka
def test_without_the_guard_one_refusal_ends_every_later_append(
    own_kafka: ApacheKafka, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 3 is still in this kafka-python: when this test fails, upstream mended it."""
    monkeypatch.setattr(KafkaLog, "_broken", lambda _self, _line: None)
    settings = settings_for(own_kafka.bootstrap, topic_prefix)
    topic = topics_of(settings).audit
    log = KafkaLog(settings, Silent())
    assert log.wait_up(120)
    lower_the_limit(own_kafka.bootstrap, topic)
    log.append(Entry(topic, 0, b"key", bytes(50_000))).exception(10)
    for _ in range(5):
        assert log.append(Entry(topic, 1, b"key", b"small")).exception(10) is not None
    log.close(0.0)


@pytest.mark.kafka
def test_up_follows_a_broker_that_dies_while_nothing_is_sent(own_kafka: ApacheKafka, topic_prefix: str) -> None:
    """An idle log notices by its own questions that the broker is gone, refuses at once, and notices its return."""
    log = KafkaLog(settings_for(own_kafka.bootstrap, topic_prefix), Silent())
    assert log.wait_up(120)
    own_kafka.kill()
    wait_while(lambda: log.up() or log._line is not None, 20.0)
    problem = log.append(Entry(topics_of(log._settings).audit, 0, b"key", b"value")).exception(ACK_TIMEOUT_S + LATE_S)
    assert isinstance(problem, PeerAway)
    own_kafka.start()
    assert log.wait_up(120)
    log.close(5.0)


def wait_while(holds: Callable[[], object], seconds: float) -> None:
    """Fails when it still holds after that time."""
    until = time.monotonic() + seconds
    while holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_memory_only_broker_that_restarted_empty_is_used_again(tmp_path: Path, topic_prefix: str) -> None:
    """Tansu forgets producer and topics: the log replaces its producer, topics are there again and records go in.

    Four partitions, as in the embedded stack: whoever asks first for a forgotten topic makes Tansu create it with four.
    """
    server = Tansu(tmp_path)
    server.start()
    try:
        settings = settings_for(server.bootstrap, topic_prefix).model_copy(
            update={"memory_only": True, "partitions": 4}
        )
        topic = topics_of(settings).audit
        log = KafkaLog(settings, Silent())
        log.append(Entry(topic, 0, b"key", b"before")).result(20)
        server.kill()
        server.start()
        assert append_until_acknowledged(log, topic, 30.0) == Place(topic, 0, 0)
        assert log.partitions == partition_count(settings) == 4
        log.close(5.0)
    finally:
        server.close()


def test_a_dropped_line_takes_no_more(tansu: str, topic_prefix: str) -> None:
    """A record that meets a line in the moment of its replacement fails; it is never forgotten."""
    log = KafkaLog(settings_for(tansu, topic_prefix), Silent())
    assert log.wait_up(120)
    line = log._line
    assert isinstance(line, Line)
    line.drop()
    future = log.append(Entry(topics_of(log._settings).audit, 0, b"key", b"value"))
    assert isinstance(future.exception(5), PeerAway)
    assert log._buffered_bytes == 0
    log.close(1.0)


def test_replaced_producers_leave_no_thread_and_lose_no_record(tansu: str, topic_prefix: str) -> None:
    """Ten replacements under load: records appended meanwhile wait and arrive; threads and sockets do not add up."""
    log = KafkaLog(settings_for(tansu, topic_prefix, ack_timeout_s=15.0), Silent())
    topic = topics_of(log._settings).audit
    assert log.wait_up(120)
    threads, sockets = open_now()
    futures: list[Future[Place]] = []
    for _ in range(10):
        line = log._line
        assert isinstance(line, Line)
        log._broken(line)
        futures += [log.append(Entry(topic, number % 2, b"key", b"value")) for number in range(20)]
        wait_while(partial(still_on, log, line), 20.0)
    assert len({future.result(20) for future in futures}) == 200
    assert open_now()[0] <= threads
    assert open_now()[1] <= sockets
    log.close(5.0)


def open_now() -> tuple[int, int]:
    """Threads and file descriptors of this process."""
    return threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))


def still_on(log: KafkaLog, line: Line) -> bool:
    """Whether the log has not opened its next line yet."""
    return log._line is line or log._line is None
