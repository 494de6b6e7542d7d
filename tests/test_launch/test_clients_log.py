"""The durable log on real brokers: acknowledged, refused, full, away."""

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from kafka import TopicPartition

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused
from contracts.hooks import Happening, Silent
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.kafka_call import KafkaLog, make_consumer, read_record, topics_of

PARTITIONS = 3
Make = Callable[..., KafkaLog]


class Recorder(Silent):
    """Hooks that remember the peer's state."""

    def __init__(self) -> None:
        self.up: list[float] = []

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Keeps PEER_UP of kafka."""
        del traceparent
        if happening is Happening.PEER_UP and labels == {"peer": "kafka"}:
            self.up.append(value)


@pytest.fixture
def settings(broker: str, topic_prefix: str) -> KafkaSettings:
    """One broker, three partitions."""
    return settings_for(broker, topic_prefix)


def settings_for(bootstrap: str, prefix: str, **more: object) -> KafkaSettings:
    """Settings for a single broker."""
    given = {"partitions": PARTITIONS, "replication": 1, "min_insync": 1, "ack_timeout_s": 15.0} | more
    return KafkaSettings.model_validate({"bootstrap": bootstrap, "topic_prefix": prefix, **given})


@pytest.fixture
def make_log() -> Iterator[Make]:
    """Makes logs that are closed afterwards."""
    made: list[KafkaLog] = []

    def make(settings: KafkaSettings, hooks: Silent | None = None) -> KafkaLog:
        made.append(KafkaLog(settings, hooks or Silent()))
        return made[-1]

    yield make
    for log in made:
        log.close(0.0)


def entry(settings: KafkaSettings, value: bytes = b"value", partition: int = 0, key: bytes = b"key") -> Entry:
    """A record for the audit topic: never compacted."""
    return Entry(topics_of(settings).audit, partition, key, value, (("name", b"header"),))


def values(settings: KafkaSettings) -> list[list[bytes]]:
    """What every partition of the audit topic holds, in order."""
    consumer = make_consumer(settings, group=None)
    tps = [TopicPartition(topics_of(settings).audit, number) for number in range(PARTITIONS)]
    held: dict[TopicPartition, list[bytes]] = {tp: [] for tp in tps}
    try:
        consumer.assign(tps)
        quiet = 0
        while quiet < 5:
            polled = consumer.poll(timeout_ms=200)
            quiet = 0 if polled else quiet + 1
            for tp, records in polled.items():
                held[tp] += [record.value for record in records]
    finally:
        consumer.close()
    return [held[tp] for tp in tps]


def free_port() -> int:
    """A port where nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_an_acknowledged_record_is_at_its_place_with_key_and_headers(settings: KafkaSettings, make_log: Make) -> None:
    """The future's place is where the record lies, whole."""
    log = make_log(settings)
    place = log.append(entry(settings, b"payload" * 1000, partition=2)).result(20)
    assert (place.topic, place.partition) == (topics_of(settings).audit, 2)
    record = read_record(settings, place)
    assert (record.key, record.value) == (b"key", b"payload" * 1000)
    assert [tuple(header) for header in record.headers] == [("name", b"header")]


def test_what_is_appended_before_the_first_connection_arrives_in_order(settings: KafkaSettings, make_log: Make) -> None:
    """Records appended while the log still connects are sent afterwards, in the order of the calls."""
    log = make_log(settings)
    futures = [log.append(entry(settings, b"%d" % number)) for number in range(50)]
    assert [future.result(20).offset for future in futures] == list(range(50))
    assert values(settings)[0] == [b"%d" % number for number in range(50)]


def test_partitions_are_those_of_the_topics_not_of_the_setting(settings: KafkaSettings, make_log: Make) -> None:
    """A service with another setting uses the count that the topics were created with."""
    assert make_log(settings).partitions == PARTITIONS
    assert make_log(settings.model_copy(update={"partitions": 7})).partitions == PARTITIONS


def test_a_tombstone_is_appended_as_null(settings: KafkaSettings, make_log: Make) -> None:
    """A value of None reaches the log as a tombstone, not as empty bytes."""
    place = make_log(settings).append(Entry(topics_of(settings).events, 0, b"key", None)).result(20)
    assert read_record(settings, place).value is None


def test_too_large_a_record_is_refused_and_the_producer_lives_on(settings: KafkaSettings, make_log: Make) -> None:
    """Fault 3: a record above the limit never reaches the client, so the next one is acknowledged by the same line."""
    log = make_log(settings.model_copy(update={"max_record_bytes": 100_000}))
    log.append(entry(settings)).result(20)
    line = log._line
    with pytest.raises(PeerRefused):
        log.append(entry(settings, bytes(100_001))).result(0)
    log.append(entry(settings, bytes(99_000))).result(20)
    assert log._line is line


def test_a_partition_that_does_not_exist_is_refused(settings: KafkaSettings, make_log: Make) -> None:
    """A wrong partition is the caller's fault: refused, not retriable, nothing hangs."""
    log = make_log(settings)
    log.append(entry(settings)).result(20)
    with pytest.raises(PeerRefused):
        log.append(entry(settings, partition=PARTITIONS)).result(0)


def test_a_full_buffer_is_busy_at_once_and_free_again_when_acknowledged(
    settings: KafkaSettings, make_log: Make
) -> None:
    """Over the high-water mark a record fails with PeerBusy in its future already; nothing of the count is lost."""
    log = make_log(settings.model_copy(update={"buffer_bytes": 1_000_000}))
    log.append(entry(settings)).result(20)
    futures = [log.append(entry(settings, bytes(400_000))) for _ in range(30)]
    refused = [future for future in futures if future.done() and isinstance(future.exception(), PeerBusy)]
    taken = [future for future in futures if future not in refused]
    assert refused
    assert all(isinstance(future.result(20), Place) for future in taken)
    assert log._buffered_bytes == 0
    log.append(entry(settings, bytes(400_000))).result(20)


def test_many_threads_append_each_in_its_own_order(settings: KafkaSettings, make_log: Make) -> None:
    """Callers share one log; each caller's records keep their order within a partition."""
    log = make_log(settings)

    def write(name: int) -> None:
        for number in range(40):
            log.append(entry(settings, b"%d:%d" % (name, number))).result(20)

    writers = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    held = values(settings)[0]
    assert len(held) == 160
    for name in range(4):
        mine = [value for value in held if value.startswith(b"%d:" % name)]
        assert mine == [b"%d:%d" % (name, number) for number in range(40)]


def test_a_callback_may_append(settings: KafkaSettings, make_log: Make) -> None:
    """The producer chains the arrived event to the scan's acknowledgement, from the client's own thread."""
    log = make_log(settings)
    second = threading.Event()
    first = log.append(entry(settings, b"first"))
    first.add_done_callback(
        lambda _: log.append(entry(settings, b"second")).add_done_callback(lambda _: second.set()),
    )
    assert second.wait(20)
    assert values(settings)[0] == [b"first", b"second"]


def test_an_away_broker_fails_appends_within_the_ack_timeout(make_log: Make, topic_prefix: str) -> None:
    """With nothing listening every append ends in PeerAway: the first in time, later ones at once; the log is down."""
    hooks = Recorder()
    settings = settings_for(f"127.0.0.1:{free_port()}", topic_prefix, ack_timeout_s=5.0)
    log = make_log(settings, hooks)
    began = time.monotonic()
    with pytest.raises(PeerAway):
        log.append(entry(settings)).result(10)
    assert time.monotonic() - began < 5.0 + 1.0
    assert isinstance(log.append(entry(settings)).exception(0), PeerAway)
    assert not log.up()
    assert hooks.up == [0.0]
    with pytest.raises(PeerAway):
        _ = log.partitions


def test_a_listener_that_never_answers_fails_appends_within_the_ack_timeout(make_log: Make, topic_prefix: str) -> None:
    """A broker that accepts and is silent holds nobody longer than ack_timeout_s."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = settings_for(f"127.0.0.1:{silent.getsockname()[1]}", topic_prefix, ack_timeout_s=1.0)
        future = make_log(settings).append(entry(settings))
        assert isinstance(future.exception(1.0 + 1.0), PeerError)


def test_closing_waits_for_what_is_in_flight_and_refuses_the_rest(settings: KafkaSettings, make_log: Make) -> None:
    """After close every earlier append is acknowledged and every later one fails; no thread stays."""
    log = make_log(settings)
    futures = [log.append(entry(settings, bytes(10_000))) for _ in range(100)]
    log.close(20.0)
    assert all(future.done() and future.exception() is None for future in futures)
    assert isinstance(log.append(entry(settings)).exception(0), PeerAway)
    assert not log._keeper.is_alive()


def test_up_is_told_once_for_each_change(settings: KafkaSettings, make_log: Make) -> None:
    """PEER_UP is a gauge: it is set when the state changes, not with every record."""
    hooks = Recorder()
    log = make_log(settings, hooks)
    assert log.wait_up(20)
    for _ in range(10):
        log.append(entry(settings)).result(20)
    assert hooks.up == [1.0]
