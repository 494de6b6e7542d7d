"""Records that left a topic before they were scored are told in the log; nothing is committed beyond them before."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from kafka import KafkaAdminClient, TopicPartition

from contracts.errors import PeerAway
from contracts.events import Lost
from contracts.names import Lane, partition_of
from contracts.scans import Place
from contracts.settings import ScoringSettings
from worker.scoring.custody import Custody
from worker.scoring.losses import Losses

PARTITIONS = 3
TP = ("scans.routine", 1)
LOST = Lost(lane=Lane.ROUTINE, topic=TP[0], partition=TP[1], first=3, upto=7, before=100.0, at=200.0)


def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Waits for it; fails where it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


class _Telling:
    """A log that answers when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[Lost, Future[Place]]] = []
        self.away = False

    def __call__(self, lost: Lost) -> "Future[Place]":
        if self.away:
            raise PeerAway("kafka")
        self.asked.append((lost, Future()))
        return self.asked[-1][1]


def kept() -> Custody:
    """A custody that owns the partition."""
    custody = Custody(ScoringSettings())
    custody.assign([TP])
    return custody


def test_the_commit_stays_before_a_loss_until_the_log_has_it(told: Any) -> None:
    """Who dies before that leaves the loss to be found again."""
    custody, telling = kept(), _Telling()
    losses = Losses(custody, telling, told)
    losses.found(LOST, 0.0)
    assert not losses.turn(0.1)
    assert custody.committable() == {TP: 3}
    telling.asked[0][1].set_result(Place("study.events", 1, 0))
    assert losses.turn(0.2)
    assert custody.committable() == {TP: 7}
    assert [lost for lost, _ in telling.asked] == [LOST]
    assert told.last[f"records_lost:{TP[0]}"] == 4.0


def test_a_loss_that_cannot_be_told_is_told_again(told: Any) -> None:
    """A broker that is away, and one that refuses: asked again, not at every turn, and the loss counts once."""
    custody, telling = kept(), _Telling()
    telling.away = True
    losses = Losses(custody, telling, told)
    losses.found(LOST, 0.0)
    telling.away = False
    assert not losses.turn(0.5)
    assert not telling.asked
    assert not losses.turn(1.5)
    telling.asked[0][1].set_exception(PeerAway("kafka"))
    assert not losses.turn(3.0)
    telling.asked[1][1].set_result(Place("study.events", 1, 0))
    assert losses.turn(3.1)
    assert told.counts["records_lost"] == 1


def test_a_loss_is_found_once_and_only_where_the_partition_is_ours(told: Any) -> None:
    """What was fetched before, and what another member owns, is no loss of ours."""
    custody, telling = kept(), _Telling()
    losses = Losses(custody, telling, told)
    for _ in range(2):
        losses.found(LOST, 0.0)
    losses.found(LOST.model_copy(update={"partition": 2}), 0.0)
    assert len(telling.asked) == 1


def test_a_loss_told_after_the_partition_went_moves_no_commit(told: Any) -> None:
    """The next owner starts from the commit, and finds it again."""
    custody, telling = kept(), _Telling()
    losses = Losses(custody, telling, told)
    losses.found(LOST, 0.0)
    custody.drop({TP})
    custody.assign([TP])
    telling.asked[0][1].set_result(Place("study.events", 1, 0))
    losses.turn(0.1)
    assert custody.committable() == {}


def delete_before(bootstrap: str, tp: TopicPartition, offset: int) -> None:
    """As retention does."""
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.delete_records({tp: offset})
    admin.close()


def committed(bench: Any, tp: TopicPartition, offset: int) -> bool:
    """Whether the group's commit stands there."""
    return bool(bench.committed().get(tuple(tp)) == offset)


@pytest.mark.stack
@pytest.mark.kafka
def test_records_that_left_the_log_unread_are_told_with_the_time_of_the_first_that_is_left(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """A log start beyond the commit: one event for the partition, an alarm with how many, and the rest is scored."""
    bench = bench_of(kafka_broker, faulty_triton.grpc)
    tp = TopicPartition(bench.topics.routine, partition_of("1.2", PARTITIONS))
    with running(bench.settings, told):
        bench.send(bench.headers(small_head, "1.2", "1.2.0"), small_head)
        until(lambda: committed(bench, tp, 1), "the first committed")
    for number in range(1, 6):
        bench.send(bench.headers(small_head, "1.2", f"1.2.{number}"), small_head)
    stamps = {record.offset: record.timestamp / 1000 for record in bench.records(tp.topic, lambda all_: len(all_) == 6)}
    delete_before(kafka_broker, tp, 4)
    later = type(told)()
    with running(bench.settings, later):
        events = bench.settled(3)
        until(lambda: committed(bench, tp, 6), "the rest committed")
    assert set(events) == {"1.2.0", "1.2.4", "1.2.5"}
    assert later.last[f"records_lost:{bench.topics.routine}"] == 3.0
    (lost,) = [event for event in bench.events(4) if isinstance(event, Lost)]
    assert (lost.lane, lost.topic, lost.partition) == (Lane.ROUTINE, tp.topic, tp.partition)
    assert (lost.first, lost.upto, lost.before) == (1, 4, stamps[4])


@pytest.mark.stack
@pytest.mark.kafka
def test_a_partition_that_is_emptied_unread_is_told_before_anything_new_comes(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """Also where the group has never committed anything: no record is left that could tell of the loss."""
    bench = bench_of(kafka_broker, faulty_triton.grpc)
    tp = TopicPartition(bench.topics.stat, partition_of("1.2", PARTITIONS))
    for number in range(3):
        bench.send(bench.headers(small_head, "1.2", f"1.2.{number}", Lane.STAT), small_head)
    delete_before(kafka_broker, tp, 3)
    with running(bench.settings, told):
        (lost,) = bench.events(1)
        until(lambda: committed(bench, tp, 3), "the loss is behind us")
        bench.send(bench.headers(small_head, "1.2", "1.2.3", Lane.STAT), small_head)
        assert set(bench.settled(1)) == {"1.2.3"}
    assert isinstance(lost, Lost)
    assert (lost.lane, lost.first, lost.upto, lost.before) == (Lane.STAT, 0, 3, None)
    assert told.counts["records_lost"] == 1


@pytest.mark.stack
def test_a_backlog_that_nears_its_retention_is_an_alarm_before_anything_is_lost(
    tansu: str, bench_of: Any, running: Any, told: Any, small_head: bytes, free_port: Callable[[], int]
) -> None:
    """With the inference server away the lane's oldest record ages; beyond half its retention it is in danger."""
    bench = bench_of(tansu, f"127.0.0.1:{free_port()}")
    kafka = bench.settings.kafka.model_copy(update={"scan_retention_s": 4.0})
    settings = bench.settings.model_copy(update={"kafka": kafka})
    before = time.time()
    for number in range(3):
        bench.send(bench.headers(small_head, f"1.2.{number}", f"1.2.3.{number}"), small_head)
    with running(settings, told):
        until(lambda: told.last.get("backlog_in_danger:routine") == 1.0, "routine is in danger")
        assert 2.0 < told.last["backlog_age_seconds:routine"] <= time.time() - before + 1.0
        assert told.last["backlog_age_seconds:stat"] == told.last["backlog_in_danger:stat"] == 0.0
        assert told.counts["records_lost"] == 0
