"""The view's scripts on real servers, Redis and Valkey: atomic, fenced, repeatable."""

import json
import time
from collections.abc import Iterator

import pytest

from contracts.events import Closed
from contracts.settings import RedisSettings
from contracts.worklist import HistoryEntry, PartitionStatus, StoredImage
from launch.clients.redis_call import make_redis, mapped
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import LOUD, QUIET, START_S, STUDY, arrived, scored
from tests.test_worker.flagging_store import RULES, Store, store_at
from worker.flagging.redis_out import DAY_S, Outcome, Pulse, RedisView

OTHER = "1.2.826.0.1.2"


@pytest.fixture
def store(redis_make: RedisServer) -> Iterator[Store]:
    """Each make of the store, below a prefix of its own."""
    with store_at(redis_make.url) as made:
        yield made


FLAGGING = [arrived(0), scored(0, LOUD), arrived(1), scored(1, LOUD)]


def test_a_batch_stores_study_rank_images_history_and_offset_together(store: Store) -> None:
    """What readers need is there after one script, and agrees."""
    fold = store.fold(store.view.take(0, "me", partitions=1))
    assert store.write(fold, FLAGGING) is Outcome.OK
    item, keys = store.item(), store.keys
    assert (item.state, item.images_settled, item.rank) == ("flagged", 2, START_S)
    assert store.client.zscore(keys.queue, STUDY) == item.rank
    assert store.client.hget(keys.partition(0), "offset") == b"4"
    assert store.client.hget(keys.study(STUDY), "offset") == b"3"
    images = [StoredImage.model_validate_json(value) for value in store.client.hvals(keys.images(STUDY))]
    assert [image.item.settlements for image in images] == [1, 1]
    history = [HistoryEntry.model_validate_json(value) for value in store.client.lrange(keys.history(STUDY), 0, -1)]
    assert [(entry.change, entry.offset) for entry in history] == [("received", 0), ("flagged", 3)]
    assert store.told() == ["received", "flagged"]


def test_a_repeated_write_changes_nothing_and_says_ok(store: Store) -> None:
    """redis-py sends a script again when the answer was lost: no second history entry, no second live change."""
    fold = store.fold(store.view.take(0, "me", partitions=1))
    batch = store.batch(fold, FLAGGING)
    assert store.view.apply(fold.taken, batch, batch.told) is Outcome.OK
    before = store.dump()
    assert store.view.apply(fold.taken, batch, batch.told) is Outcome.OK
    assert store.dump() == before


def test_a_zombie_that_wakes_up_is_refused_and_changes_nothing(store: Store) -> None:
    """Its token is an older one: whatever offsets it holds, the new owner's view stands."""
    zombie = store.fold(store.view.take(0, "zombie", partitions=1))
    late = store.batch(zombie, FLAGGING[:1])
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, FLAGGING)
    before = store.dump()
    assert store.view.apply(zombie.taken, late, late.told) is Outcome.STALE
    assert store.view.beat(zombie.taken, 0, Pulse(PartitionStatus.READY, 0)) is Outcome.STALE
    assert store.dump() == before


def test_a_study_is_never_written_over_a_later_offset(store: Store) -> None:
    """Even the rightful owner cannot store an older state: the whole batch is refused, nothing of it is in."""
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, FLAGGING)
    store.client.hset(store.keys.study(STUDY), "offset", 99)
    before = store.dump()
    older = store.batch(fold, [arrived(0, study=OTHER), arrived(2)])
    assert store.view.apply(fold.taken, older, older.told) is Outcome.STALE
    assert store.dump() == before
    assert not store.client.exists(store.keys.study(OTHER))


@pytest.mark.parametrize("offset", [None, "2", "9"], ids=["emptied", "older replica", "elsewhere"])
def test_a_store_that_stands_elsewhere_refuses_the_write_and_the_beat(store: Store, offset: str | None) -> None:
    """Emptied, failed over to an older replica: one case, noticed by the write itself."""
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, FLAGGING)
    if offset is None:
        store.client.delete(store.keys.partition(0))
    else:
        store.client.hset(store.keys.partition(0), "offset", offset)
    before = store.dump()
    assert store.view.beat(fold.taken, 4, Pulse(PartitionStatus.READY, 4)) is Outcome.LOST
    assert store.write(fold, [arrived(2)]) is Outcome.LOST
    assert store.dump() == before


def test_an_owner_takes_up_where_the_store_stands(store: Store) -> None:
    """The open study comes back whole, and the next event leads to the same row as without the change of hands."""
    store.write(store.fold(store.view.take(0, "first", partitions=1)), FLAGGING[:3])
    second = store.fold(store.view.take(0, "second", partitions=1))
    assert second.next_offset == 3
    assert store.write(second, FLAGGING[3:]) is Outcome.OK
    assert store.item().state == "flagged"


def test_left_overs_of_a_truncated_store_are_built_anew(store: Store) -> None:
    """Only the partition's hash is gone: the log is read from its start, and no history is told twice."""
    store.write(store.fold(store.view.take(0, "me", partitions=1)), FLAGGING)
    before = store.client.lrange(store.keys.history(STUDY), 0, -1)
    store.client.delete(store.keys.partition(0))
    fold = store.fold(store.view.take(0, "me again", partitions=1))
    assert fold.next_offset == 0
    assert store.write(fold, FLAGGING) is Outcome.OK
    assert store.client.lrange(store.keys.history(STUDY), 0, -1) == before


def test_studies_stay_when_the_broker_lost_its_log(store: Store) -> None:
    """Offsets start again at 0 and are applied to what is known."""
    store.write(store.fold(store.view.take(0, "me", partitions=1)), FLAGGING)
    fold = store.fold(store.view.take(0, "me again", partitions=1, reset=True))
    assert fold.next_offset == 0
    assert store.write(fold, [arrived(2), scored(1, 0.1)]) is Outcome.OK
    assert (store.item().images_received, store.item().images_settled, store.item().state) == (3, 2, "receiving")


def test_a_closed_study_gets_a_time_to_live_and_leaves_with_all_its_keys(store: Store) -> None:
    """Patient data does not stay behind: after keep_days queue entry and keys are gone, reopened studies stay."""
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, [arrived(0), scored(0), Closed(study_instance_uid=STUDY, at=0, after_offset=1)])
    assert STUDY not in fold.studies
    leave_at = store.client.zscore(store.keys.leaving, STUDY)
    assert leave_at == START_S + 2 + 30 * DAY_S
    assert store.client.ttl(store.keys.study(STUDY)) > 0
    store.write(fold, [arrived(1)])
    assert store.client.ttl(store.keys.study(STUDY)) == -1
    assert store.view.leave() == 0
    store.write(fold, [scored(1), Closed(study_instance_uid=STUDY, at=0, after_offset=4)])
    store.client.zadd(store.keys.leaving, {STUDY: 1.0})
    store.view.beat(fold.taken, fold.next_offset, Pulse(PartitionStatus.READY, 0))
    assert store.view.leave() == 1
    assert set(store.dump()) == {store.keys.changes, store.keys.partitions}


def test_a_rebuild_keeps_a_study_of_long_ago_until_all_of_its_log_was_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flagged and closed 40 days ago, opened again by a late image 20 days ago: rebuilt, it is flagged still."""
    monkeypatch.setattr("tests.test_worker.flagging_store.START_S", time.time() - 40 * DAY_S)
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, [*FLAGGING, Closed(study_instance_uid=STUDY, at=0, after_offset=3)])
    assert store.view.leave() == 0
    monkeypatch.setattr("tests.test_worker.flagging_store.START_S", time.time() - 20 * DAY_S)
    store.write(fold, [arrived(2), scored(2, QUIET), Closed(study_instance_uid=STUDY, at=0, after_offset=6)])
    item = store.item()
    assert (item.state, item.images_received, item.images_settled) == ("flagged", 3, 3)


def test_what_is_over_leaves_once_the_view_is_complete(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sweep waits for a rebuild, not longer."""
    monkeypatch.setattr("tests.test_worker.flagging_store.START_S", time.time() - 40 * DAY_S)
    fold = store.fold(store.view.take(0, "me", partitions=1))
    store.write(fold, [*FLAGGING, Closed(study_instance_uid=STUDY, at=0, after_offset=3)])
    assert store.view.beat(fold.taken, fold.next_offset, Pulse(PartitionStatus.READY, 5)) is Outcome.OK
    assert store.view.leave() == 1
    assert store.client.zcard(store.keys.queue) == 0


def test_the_next_owner_learns_the_time_at_the_broker_and_readers_the_partition_count(store: Store) -> None:
    """What a restart would forget, and what a setting may have wrong."""
    taken = store.view.take(0, "me", partitions=6)
    assert taken.clock == 0.0
    assert store.view.beat(taken, 0, Pulse(PartitionStatus.READY, 0, START_S + 0.25)) is Outcome.OK
    assert store.view.take(0, "me again", partitions=6).clock == START_S + 0.25
    assert store.client.get(store.keys.partitions) == b"6"


def test_the_stream_of_live_changes_is_capped(redis_make: RedisServer, store: Store) -> None:
    """Nobody listens for a week: the stream does not grow."""
    settings = RedisSettings(url=redis_make.url, key_prefix=store.keys.prefix, changes_max=100)
    store.view = RedisView(settings, RULES, make_redis(settings), mapped)
    fold = store.fold(store.view.take(0, "me", partitions=1))
    for start in range(0, 600, 200):
        assert store.write(fold, [arrived(0, study=f"1.2.{start + n}") for n in range(200)]) is Outcome.OK
    assert 100 <= store.client.xlen(store.keys.changes) < 300


def test_live_changes_have_a_time_to_live_like_the_studies_they_tell_of(store: Store) -> None:
    """They hold names too: on a quiet site the cap alone would keep them for years."""
    old_ms = int((time.time() - 31 * DAY_S) * 1000)
    store.client.xadd(store.keys.changes, {"event": "received", "item": "Doe^Jane"}, id=f"{old_ms}-0")
    store.write(store.fold(store.view.take(0, "me", partitions=1)), FLAGGING)
    assert store.told() == ["received", "flagged"]
    assert [b"Doe" in fields[b"item"] for _, fields in store.client.xrange(store.keys.changes)] == [True, True]
    assert min(store.client.xrange(store.keys.changes))[0] > f"{old_ms}-0".encode()
    assert 0 < store.client.ttl(store.keys.changes) <= 30 * DAY_S


def test_names_in_redis_hold_no_patient_data(store: Store) -> None:
    """Keys, members and fields name UIDs and digests; the patient is in values alone."""
    store.write(store.fold(store.view.take(0, "me", partitions=1)), FLAGGING)
    names = json.dumps([str(key) for key in store.client.keys(f"{store.keys.prefix}*")])
    fields = json.dumps([str(field) for field in store.client.hkeys(store.keys.images(STUDY))])
    assert store.item().patient.name == "Doe^Jane"
    for secret in ("Doe", "Jane", "4711", "A1"):
        assert secret not in names.replace(store.keys.prefix, "") + fields
