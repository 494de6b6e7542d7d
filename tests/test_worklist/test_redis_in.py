"""Reading the view, on both makes of the store."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from contracts.errors import DecodeError, PeerAway, PeerError, PeerRefused, SettingsError
from contracts.findings import StudyState, Urgency
from contracts.hooks import Silent
from contracts.settings import RedisSettings
from contracts.worklist import Change, PartitionStatus, QueueStatus
from launch.clients.redis_call import make_async_redis, mapped
from launch.stack.redis_server import RedisServer
from tests.test_worklist.view_writer import PARTITIONS, Writer, item
from worklist.answers import Query
from worklist.cursor import Cursor
from worklist.reading import Reading
from worklist.redis_in import RedisView
from worklist.view import BEGINNING_ID

T = TypeVar("T")
NOW = 1_790_000_100.0


def _with_view(url: str, prefix: str, work: Callable[[RedisView], Awaitable[T]]) -> T:
    async def run() -> T:
        given = RedisSettings(url=SecretStr(url), key_prefix=prefix, timeout_s=1.0)
        view = RedisView(given, PARTITIONS, make_async_redis(given), mapped)
        try:
            return await work(view)
        finally:
            await view.close()

    return asyncio.run(run())


@pytest.fixture
def made(redis_make: RedisServer, prefix: str) -> Writer:
    """Writes a view into each make of the store."""
    return Writer(redis_make.url, prefix)


def _read(url: str, prefix: str, work: Callable[[Reading], Awaitable[T]]) -> T:
    return _with_view(url, prefix, lambda view: work(_reading(view)))


def _reading(view: RedisView) -> Reading:
    return Reading(view, 30.0, lambda: NOW, Silent())


async def _whole(reading: Reading, limit: int, **filters: object) -> list[tuple[int, str]]:
    """All pages of the list, by their cursors."""
    found: list[tuple[int, str]] = []
    after = None
    while True:
        answer = await reading.worklist(Query(limit=limit, after=after, **filters))
        assert len(answer.items) <= limit
        found.extend((one.position, one.study_instance_uid) for one in answer.items)
        if answer.next is None:
            return found
        after = Cursor.decode(answer.next)


def test_places_come_by_rank_and_equal_ranks_by_uid(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """The reading order is the rank's; equal ranks keep one stable order, on every page size."""
    uids = ["1.10", "1.9", "1.2", "1.2.1", "1.20"]
    made.put_all([item(uid, rank=5.0) for uid in uids] + [item("9.9", rank=-1e9), item("0.1", rank=1_790_000_000.25)])
    expected = [*enumerate(["9.9", *sorted(uids), "0.1"], start=1)]
    for limit in (1, 2, 3, 7, 50):
        assert _read(redis_make.url, prefix, partial(_whole, limit=limit)) == expected


def test_a_page_goes_on_behind_a_study_that_left(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """The cursor is a place: neither a study that left there nor one that moved forward shifts the next page."""

    async def work(reading: Reading) -> list[str]:
        first = await reading.worklist(Query(limit=3))
        made.remove("1.3")  # the place of the cursor itself
        made.put(item("1.5", rank=0.5))  # moves to the front
        assert first.next
        after = await reading.worklist(Query(limit=10, after=Cursor.decode(first.next)))
        return [one.study_instance_uid for one in (*first.items, *after.items)]

    made.put_all([item(f"1.{n}", rank=7.0) for n in range(1, 7)])
    assert _read(redis_make.url, prefix, work) == ["1.1", "1.2", "1.3", "1.4", "1.6"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ranks=st.lists(st.one_of(st.sampled_from([1.0, 2.0]), st.floats(-1e10, 1e10)), max_size=24),
    limit=st.integers(1, 9),
)
def test_pages_put_together_are_the_whole_queue(redis_make: RedisServer, ranks: list[float], limit: int) -> None:
    """Whatever the ranks (ties, negative, tiny) and the page size: each study once, in order, truly numbered."""
    prefix = f"t{uuid.uuid4().hex}:"
    writer = Writer(redis_make.url, prefix)
    writer.put_all([item(f"1.{n}", rank=rank) for n, rank in enumerate(ranks)])
    order = writer.order()
    found = _read(redis_make.url, prefix, lambda reading: _whole(reading, limit))
    assert found == [*enumerate(order, start=1)]


def test_filters_keep_true_positions_and_full_pages(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """One study in forty passes: it is found, numbered by its place in the whole queue."""
    made.put_all(
        [
            item(
                f"1.{n:03}",
                rank=float(n),
                state=StudyState.FLAGGED if n % 40 == 7 else StudyState.NOT_FLAGGED,
                urgency=Urgency.CRITICAL if n % 80 == 7 else Urgency.ROUTINE,
            )
            for n in range(230)
        ]
    )

    async def work(reading: Reading) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        flagged = frozenset({StudyState.FLAGGED})
        urgencies = frozenset({Urgency.CRITICAL})
        return await _whole(reading, 2, states=flagged), await _whole(reading, 2, states=flagged, urgencies=urgencies)

    both, critical = _read(redis_make.url, prefix, work)
    assert both == [(n + 1, f"1.{n:03}") for n in range(7, 230, 40)]
    assert critical == [(n + 1, f"1.{n:03}") for n in range(7, 230, 80)]


def test_a_study_that_cannot_be_read_degrades_the_list(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """Rubbish in the store hides one study, so the answer is not ok; the others are shown at their true places."""
    made.ready()
    made.put_all([item("1.1", rank=1), item("1.2", rank=2), item("1.3", rank=3)])
    made.client.hset(made.keys.study("1.2"), "item", '{"patient": "Specimen^Alice"}')
    answer = _read(redis_make.url, prefix, lambda reading: reading.worklist(Query(limit=10)))
    assert answer.status is QueueStatus.DEGRADED
    assert [(one.position, one.study_instance_uid) for one in answer.items] == [(1, "1.1"), (3, "1.3")]


def test_a_study_that_the_store_has_lost_degrades_the_list(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """Studies leave queue and store in one step, so a place without a study is a loss: never `ok`."""
    made.ready()
    made.put_all([item("1.1", rank=1), item("1.2", rank=2)])
    made.client.delete(made.keys.study("1.1"))
    answer = _read(redis_make.url, prefix, lambda reading: reading.worklist(Query(limit=10)))
    assert answer.status is QueueStatus.DEGRADED
    assert "missing" in answer.detail
    assert [one.study_instance_uid for one in answer.items] == ["1.2"]


def test_a_study_comes_with_images_and_history(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """Images by arrival, history by the log, the place in the queue, the partitions: in one answer."""
    made.ready([0])
    made.partition(2, PartitionStatus.REBUILDING, silent_s=50)
    made.put(item("1.1", rank=1))
    made.put(item("1.2", rank=2))
    made.detail("1.2")
    study = _with_view(redis_make.url, prefix, lambda view: view.study("1.2"))
    assert study.place == 1
    assert [image.sop_instance_uid for image in study.images] == ["1.2.1", "1.2.2"]
    assert [entry.offset for entry in study.history] == [3, 9]
    assert [(p.number, p.status) for p in study.partitions] == [(0, "ready"), (2, "rebuilding")]
    assert [p.silent_s == pytest.approx(silent, abs=5) for p, silent in zip(study.partitions, (0, 50), strict=True)]


def test_the_store_says_how_many_partitions_there_are_not_the_setting(
    redis_make: RedisServer, made: Writer, prefix: str
) -> None:
    """Topics with more partitions than the setting are not complete without them; with fewer nothing is waited for."""
    made.put(item("1.1", rank=1))
    made.ready()
    for real, status in ((PARTITIONS + 2, QueueStatus.REBUILDING), (PARTITIONS - 2, QueueStatus.OK)):
        made.client.set(made.keys.partitions, real)
        listed = _read(redis_make.url, prefix, lambda reading: reading.worklist(Query(limit=10)))
        study = _read(redis_make.url, prefix, lambda reading: reading.study("1.1"))
        assert (listed.status, study.status) == (status, status)


def test_an_unknown_study_is_empty_and_an_unreadable_one_an_error(
    redis_make: RedisServer, made: Writer, prefix: str
) -> None:
    """Absent and unreadable are told apart."""
    assert _with_view(redis_make.url, prefix, lambda view: view.study("9")).item is None
    made.client.hset(made.keys.study("1.1"), "item", "{}")
    with pytest.raises(DecodeError):
        _with_view(redis_make.url, prefix, lambda view: view.study("1.1"))


def test_changes_come_in_order_with_the_present_position(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """Behind an id, oldest first, with the place the study has now; nothing new is an empty answer."""
    first = made.put(item("1.1", rank=5), Change.RECEIVED)
    second = made.put(item("1.2", rank=1), Change.FLAGGED)

    async def work(view: RedisView) -> None:
        after, changes = await view.changes(BEGINNING_ID, 10)
        assert [(c.id, c.change, c.item.study_instance_uid, c.item.position) for c in changes] == [
            (first, Change.RECEIVED, "1.1", 2),
            (second, Change.FLAGGED, "1.2", 1),
        ]
        assert (await view.changes(after, 10, wait_s=0.05)) == (after, ())
        bounds = await view.bounds()
        assert (bounds.first, bounds.last) == (first, second)

    _with_view(redis_make.url, prefix, work)


def test_a_change_that_cannot_be_read_is_passed(redis_make: RedisServer, made: Writer, prefix: str) -> None:
    """One broken entry does not stop the tail for ever."""
    made.client.xadd(made.keys.changes, {"event": "no such change", "item": "{}"})
    good = made.put(item("1.1"), Change.CLOSED)
    after, changes = _with_view(redis_make.url, prefix, lambda view: view.changes(BEGINNING_ID, 10))
    assert after == good
    assert [change.id for change in changes] == [good]


def test_foreign_exceptions_stop_at_the_edge(
    redis_make: RedisServer, made: Writer, prefix: str, tmp_path: Path
) -> None:
    """Away, wrong type, wrong URL: each is one of our errors, and none quotes what is stored."""
    made.client.set(made.keys.queue, "Specimen^Alice")
    with pytest.raises(PeerRefused) as problem:
        _with_view(redis_make.url, prefix, lambda view: view.page(None, 1))
    assert "Specimen" not in str(problem.value)
    gone = RedisServer(tmp_path)
    gone.start()
    url = gone.url
    gone.close()
    with pytest.raises(PeerAway):
        _with_view(url, prefix, lambda view: view.page(None, 1))
    with pytest.raises(SettingsError, match=r"redis\.url"):
        _with_view("http://user:secret@nowhere", prefix, lambda view: view.bounds())


def test_a_wrong_password_is_a_refusal(redis_make: RedisServer, prefix: str) -> None:
    """Credentials that the server does not know are a PeerError, not a crash."""
    url = redis_make.url.replace("redis://", "redis://nobody:wrong@")
    with pytest.raises(PeerError):
        _with_view(url, prefix, lambda view: view.bounds())
