"""Quiet period and deadline, by the broker's clock."""

import threading
import uuid
from concurrent.futures import Future
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from contracts import events
from contracts.events import Closed, Expired
from contracts.hooks import Silent
from contracts.names import RedisKeys
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import FlaggingSettings, RedisSettings
from contracts.worklist import Backlog
from launch.clients.redis_call import make_redis, mapped
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import START_S, STUDY, arrived, logged, scored
from worker.flagging.audit_out import Audit
from worker.flagging.owner_out import Owner
from worker.flagging.redis_out import RedisView
from worker.flagging.study import Logged, Study
from worker.flagging.timers import BrokerClock, due
from worker.flagging.timers_in import Timers
from worker.flagging.view import Raw

RULES = FlaggingSettings(quiet_s=10.0, deadline_s=300.0)


def study_of(*log: Logged) -> Study:
    """Folds a log."""
    study = Study(STUDY, RULES)
    for entry in log:
        study.apply(entry)
    return study


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(0, 30)), min_size=1), st.floats(0, 100))
def test_the_broker_clock_is_never_ahead_of_the_broker(records: list[tuple[float, float]], later_s: float) -> None:
    """Records are seen some time after their append, never before: what the clock says is at most the true time."""
    clock = BrokerClock()
    for appended_s, on_the_way_s in records:
        clock.saw(START_S + appended_s, 50.0 + appended_s + on_the_way_s)
    seen_s = max(appended_s + on_the_way_s for appended_s, on_the_way_s in records)
    assert clock.now(50.0 + seen_s + later_s) <= START_S + seen_s + later_s + 1e-6


def test_a_clock_that_saw_nothing_makes_nothing_due() -> None:
    """An owner that has read nothing knows no time, and closes nothing."""
    study = study_of(*logged([arrived(0), scored(0)]))
    assert due([study], BrokerClock().now(1e9), 0.0, RULES) == []


def test_a_settled_study_closes_after_its_quiet_period_and_not_before() -> None:
    """Counted from the append of the last new image; a duplicate does not start it again."""
    study = study_of(*logged([arrived(0), scored(0), arrived(0)]))
    assert due([study], START_S + 9.9, 0.0, RULES) == []
    (event,) = due([study], START_S + 10.0, 0.0, RULES)
    assert isinstance(event, Closed)
    assert event.after_offset == 1


def test_an_unsettled_study_never_closes_and_expires_once() -> None:
    """Silence is no answer: past the deadline it is told as delayed, and not told again."""
    study = study_of(*logged([arrived(0), scored(0), arrived(1)]))
    assert due([study], START_S + 299.0, 0.0, RULES) == []
    (event,) = due([study], START_S + 301.0, 0.0, RULES)
    assert isinstance(event, Expired)
    study.apply(Logged(event, 3, START_S + 301.0))
    assert due([study], START_S + 9999.0, 0.0, RULES) == []


def test_images_that_go_on_arriving_do_not_put_the_deadline_off() -> None:
    """With every scorer dead, a study that gets an image every four minutes is told as delayed after five."""
    arrivals = [Logged(arrived(n), n, START_S + 240.0 * n) for n in range(4)]
    study = study_of(*arrivals)
    assert due([study], START_S + 299.0, 0.0, RULES) == []
    (event,) = due([study], START_S + 721.0, 0.0, RULES)
    assert isinstance(event, Expired)


def test_a_deadline_counts_from_the_oldest_image_that_still_waits() -> None:
    """A long study whose images are scored as they come is never late."""
    log = [Logged(arrived(0), 0, START_S), Logged(scored(0), 1, START_S + 1.0), Logged(arrived(1), 2, START_S + 290.0)]
    study = study_of(*log)
    assert due([study], START_S + 500.0, 0.0, RULES) == []
    assert len(due([study], START_S + 591.0, 0.0, RULES)) == 1


def test_a_closed_study_is_left_alone_until_a_late_image_comes() -> None:
    """Then its quiet period starts again."""
    study = study_of(*logged([arrived(0), scored(0), Closed(study_instance_uid=STUDY, at=0.0, after_offset=1)]))
    assert due([study], START_S + 9999.0, 0.0, RULES) == []
    for entry in logged([arrived(1), scored(1)], start=100):
        study.apply(entry)
    assert due([study], START_S + 19.9, 0.0, RULES) == []
    assert len(due([study], START_S + 20.0, 0.0, RULES)) == 1


class Kept:
    """A log that keeps what is appended."""

    partitions = 1

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append(self, entry: Entry) -> "Future[Place]":
        """Durable at once."""
        self.entries.append(entry)
        done: Future[Place] = Future()
        done.set_result(Place(entry.topic, entry.partition, len(self.entries)))
        return done

    def up(self) -> bool:
        """Always."""
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing to end."""


def test_restarts_do_not_set_a_deadline_back(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners that each live shorter than the deadline still tell a study in time, also when nothing new arrives."""
    now: dict[str, float] = {"s": 0.0}
    monkeypatch.setattr("worker.flagging.timers_in.time.monotonic", lambda: now["s"])
    log, event = Kept(), arrived(0)
    settings = RedisSettings(url=SecretStr(redis_server.url), key_prefix=f"t{uuid.uuid4().hex[:8]}:")
    store = RedisView(settings, RULES, make_redis(settings), mapped)

    def owner() -> Any:
        return Owner(0, store, Audit(log, "audit"), Timers(log, "events", 0, RULES), RULES, Silent())

    first = owner()
    first.take(0, partitions=1)
    first.apply([Raw(0, START_S, event.key, events.encode(event))], threading.Event())
    for live in (first, owner(), owner()):
        if live is not first:
            live.take(1, partitions=1)
        live.look(1, 1)
        now["s"] += 120.0
        live.beat(1, 1)
        live.tick()
    told = [events.decode(entry.value) for entry in log.entries if entry.topic == "events" and entry.value]
    assert [one.kind for one in told] == ["expired"]
    store.close()


def test_readers_hear_how_old_a_view_is_whose_owner_has_results_to_read(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age of the last event that was folded in while later ones wait; nothing at the log's end, gaps included."""
    now: dict[str, float] = {"s": 0.0}
    monkeypatch.setattr("worker.flagging.timers_in.time.monotonic", lambda: now["s"])
    settings = RedisSettings(url=SecretStr(redis_server.url), key_prefix=f"t{uuid.uuid4().hex[:8]}:")
    store, log, event = RedisView(settings, RULES, make_redis(settings), mapped), Kept(), arrived(0)
    owner = Owner(0, store, Audit(log, "audit"), Timers(log, "events", 0, RULES), RULES, Silent())
    owner.take(0, partitions=1)
    owner.apply([Raw(0, START_S, event.key, events.encode(event))], threading.Event())
    now["s"] += 45.0
    client, keys = make_redis(settings), RedisKeys(settings.key_prefix)

    def told_s(end: int | None, position: int) -> float:
        owner.beat(end, position)
        return Backlog.model_validate_json(client.hget(keys.partition(0), "backlog") or b"").behind_s

    assert told_s(end=9, position=1) == pytest.approx(45.0, abs=1.0)
    assert [told_s(end=9, position=9), told_s(end=1, position=1), told_s(end=None, position=1)] == [0.0, 0.0, 0.0]
    store.close()
