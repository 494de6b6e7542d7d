"""The store at its worst: full, read-only, dropping keys, cut off in mid-write, restarted with what it had before."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import PeerBusy, PeerRefused
from contracts.events import AnyEvent, Closed, Lost
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.worklist import Backlog, PartitionStatus
from launch.stack.redis_server import RedisServer, redis_binary, valkey_binary
from tests.conftest import missing, running
from tests.test_worker.flagging_events import LOUD, QUIET, START_S, STUDY, arrived, not_analysed, scored
from tests.test_worker.flagging_store import Store, store_at
from worker.flagging.redis_out import Outcome, Pulse

OTHER = "1.2.826.0.1.2"
LOG: list[AnyEvent] = [
    *(arrived(n) for n in range(4)),
    *(arrived(n, study=OTHER) for n in range(2)),
    *(scored(n, LOUD) for n in range(2)),
    not_analysed(0, Reason.MODEL_REFUSED, study=OTHER),
    Lost(lane=Lane.STAT, topic="scans.stat", partition=0, first=0, upto=3, before=START_S, at=START_S),
    scored(2, QUIET),
    scored(0, QUIET, study=OTHER),
    scored(1, QUIET, study=OTHER),
    Closed(study_instance_uid=OTHER, at=0.0, after_offset=12),
    arrived(5, study=OTHER),
    scored(3, LOUD),
]
PULSE = Pulse(PartitionStatus.READY, 0)
CUTS = 12  # each costs a start of the server


@pytest.fixture(params=["redis", "valkey"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A store of this test alone, of each make."""
    binary = {"redis": redis_binary, "valkey": valkey_binary}[request.param]()
    if binary is None:
        missing(f"no {request.param} server is installed")
    yield from running(RedisServer(tmp_path / "own", binary))


@pytest.fixture
def store(own: RedisServer) -> Iterator[Store]:
    """A view on it."""
    with store_at(own.url) as made:
        yield made


def test_wherever_the_file_is_cut_the_view_ends_the_same(own: RedisServer, store: Store, tmp_path: Path) -> None:
    """Killed with -9, and an append-only file cut at any byte: resumed from what is left, every row, image, history and
    settlement is as if nothing had happened.
    """
    store.resume(LOG)
    whole = store.seen()
    own.kill()
    kept = tmp_path / "kept"
    shutil.copytree(own.folder / "appendonlydir", kept)
    (aof,) = kept.glob("*.incr.aof")
    size, dice = aof.stat().st_size, random.Random(7)
    resumed_at = set()
    for cut in [*sorted(dice.randrange(size) for _ in range(CUTS)), size]:
        shutil.rmtree(own.folder / "appendonlydir")
        shutil.copytree(kept, own.folder / "appendonlydir")
        with (own.folder / "appendonlydir" / aof.name).open("r+b") as file:
            file.truncate(cut)
        own.start()
        resumed_at.add(int(store.client.hget(store.keys.partition(0), "offset") or 0))
        fold = store.resume(LOG)
        assert store.seen() == whole, f"cut at byte {cut} of {size}"
        assert fold.lost == {Lane.STAT: START_S}
        own.kill()
    assert len(resumed_at) > 3, "cuts lie in different places of the log"


def test_a_full_store_refuses_whole_batches_and_goes_on_when_it_has_room(store: Store) -> None:
    """A limit with noeviction: the writer is told, nothing is half written, and nothing is lost."""
    fold = store.taken()
    assert store.write(fold, LOG[:4]) is Outcome.OK
    before = store.dump()
    batch = store.batch(fold, LOG[4:9])
    store.client.config_set("maxmemory", 1)
    for write in (
        lambda: store.view.apply(fold.taken, batch, batch.told),  # it begins with a study that is new
        lambda: store.view.beat(fold.taken, 4, PULSE),
        lambda: store.view.take(0, "other", partitions=1),
    ):
        with pytest.raises(PeerBusy, match="OutOfMemoryError"):
            write()
    assert store.dump() == before
    store.client.config_set("maxmemory", 0)
    assert store.view.apply(fold.taken, batch, batch.told) is Outcome.OK


def test_readers_of_a_full_store_hear_at_once_that_nothing_moves(store: Store) -> None:
    """No beat can be written, so the last one is taken away; with room again it is back."""
    fold = store.taken()
    store.client.config_set("maxmemory", 1)
    store.view.hush([0])
    assert not store.client.hexists(store.keys.partition(0), "beat")
    store.client.config_set("maxmemory", 0)
    assert store.view.beat(fold.taken, 0, PULSE) is Outcome.OK
    assert store.client.hexists(store.keys.partition(0), "beat")


def test_a_full_store_still_lets_studies_leave(store: Store) -> None:
    """What is over makes room."""
    fold = store.resume(LOG[:14])
    assert store.view.beat(fold.taken, 14, PULSE) is Outcome.OK
    store.client.zadd(store.keys.leaving, {OTHER: 1.0})
    store.client.config_set("maxmemory", 1)
    assert store.view.leave() == 1
    assert not store.client.exists(store.keys.study(OTHER))


def test_a_replica_cannot_be_written_and_says_so(store: Store) -> None:
    """A wrong address, or a failover that went past us: refused, nothing changed."""
    fold = store.resume(LOG[:4])
    store.client.replicaof("127.0.0.1", "1")
    with pytest.raises(PeerRefused, match="ReadOnlyError"):
        store.view.beat(fold.taken, 4, PULSE)
    with pytest.raises(PeerRefused, match="ReadOnlyError"):
        store.view.take(0, "other", partitions=1)
    store.client.replicaof("NO", "ONE")
    assert store.view.beat(fold.taken, 4, PULSE) is Outcome.OK


def test_a_store_that_may_evict_is_told_from_one_that_may_not(store: Store) -> None:
    """A policy matters only with a limit."""
    assert not store.view.evicts()
    store.client.config_set("maxmemory-policy", "allkeys-lru")
    assert not store.view.evicts()
    store.client.config_set("maxmemory", 1 << 30)
    assert store.view.evicts()
    store.client.config_set("maxmemory-policy", "noeviction")
    assert not store.view.evicts()


def _evict(client: Any) -> None:
    """Makes the store drop something: it has room for little more than it holds."""
    client.config_set("maxmemory-policy", "allkeys-random")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 200_000)
    for n in range(200):
        client.set(f"junk{n}", "x" * 4096)
    assert client.info("stats")["evicted_keys"]


@pytest.mark.parametrize("asked", ["beat", "apply", "take"])
def test_what_a_store_dropped_by_itself_makes_it_rebuilt(store: Store, asked: str) -> None:
    """Nobody can name the keys: neither beat nor write goes on, and the next owner reads the whole log again."""
    fold = store.resume(LOG[:8])
    seen = store.seen()
    late = store.batch(fold, LOG[8:9])
    _evict(store.client)
    store.client.config_set("maxmemory", 0)
    if asked == "beat":
        assert store.view.beat(fold.taken, 8, PULSE) in {Outcome.TORN, Outcome.LOST}
    elif asked == "apply":
        assert store.view.apply(fold.taken, late, late.told) in {Outcome.TORN, Outcome.LOST}
    again = store.taken("next")
    assert (again.next_offset, again.studies) == (0, {})
    store.write(again, LOG[:8])
    assert store.seen() == seen
    assert store.view.beat(again.taken, 8, PULSE) is Outcome.OK


def test_a_store_that_was_restarted_is_gone_on_with_where_it_cannot_have_dropped_anything(
    own: RedisServer, store: Store
) -> None:
    """Another life of the same store, same offset: no rebuild; but with a policy that evicts, nobody knows."""
    store.resume(LOG[:8])
    own.kill()
    own.start()
    assert store.taken("next").next_offset == 8
    own.kill()
    own.start()
    store.client.config_set("maxmemory-policy", "allkeys-lru")
    store.client.config_set("maxmemory", 1 << 30)
    assert store.taken("third").next_offset == 0


def test_another_log_under_the_same_offsets_starts_again_and_keeps_the_studies(store: Store) -> None:
    """A topic that was made anew has another id, however many records it has by now; without an id nothing is said."""
    store.write(store.taken(log="first"), LOG[:8])
    assert store.taken("same", log="first").next_offset == 8
    assert store.taken("unknown").next_offset == 8
    fold = store.taken("other", log="second")
    assert (fold.next_offset, fold.taken.other_log) == (0, True)
    assert store.write(fold, [arrived(7), scored(7), scored(0, LOUD)]) is Outcome.OK
    assert (store.item().images_received, store.item().state) == (5, "flagged")
    assert store.settlements() == [1, 1, 0, 0, 1]
    assert store.taken("third", log="second").next_offset == 3


def test_the_beat_carries_how_far_analysis_is_behind(store: Store) -> None:
    """As the worklist reads it."""
    fold = store.resume(LOG[:8])
    backlog = fold.waiting.backlog(START_S + 60.0)
    assert (backlog.images, backlog.oldest_s) == (4, 60.0)
    store.view.beat(fold.taken, 8, Pulse(PartitionStatus.READY, 0, START_S, backlog))
    stored = store.client.hget(store.keys.partition(0), "backlog")
    assert Backlog.model_validate_json(stored) == backlog
    assert STUDY in fold.studies
