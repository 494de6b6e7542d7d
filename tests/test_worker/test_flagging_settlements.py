"""How often an image was settled in effect: counted where the effect is, so that a fault that doubles it shows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts.events import Closed
from contracts.findings import ImageOutcome
from contracts.reasons import Reason
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import LOUD, QUIET, STUDY, arrived, not_analysed, scored
from tests.test_worker.flagging_store import Store, store_at
from worker.flagging.redis_out import Outcome

LOG = [arrived(0), scored(0), arrived(1), scored(1, LOUD)]


@pytest.fixture
def store(redis_make: RedisServer) -> Iterator[Store]:
    """Each make of the store."""
    with store_at(redis_make.url) as made:
        yield made


def test_waiting_is_0_and_settled_is_1_whatever_is_delivered_again(store: Store) -> None:
    """Redelivered, scored a second time, replayed after a crash, taken over in between: 1."""
    fold = store.taken()
    assert store.write(fold, [arrived(0)]) is Outcome.OK
    assert store.settlements() == [0]
    assert store.write(fold, [scored(0), scored(0), arrived(0)]) is Outcome.OK
    assert store.write(fold, [scored(0)]) is Outcome.OK
    assert store.settlements() == [1]
    again = store.taken("next")
    assert store.write(again, [scored(0), scored(0, version="2")]) is Outcome.OK
    assert store.settlements() == [1]


def test_a_revision_by_a_replayed_dead_letter_is_no_second_settlement(store: Store) -> None:
    """Not analysed, closed, left memory, scored at last: settled once, revised once."""
    fold = store.taken()
    store.write(fold, [arrived(0), not_analysed(0, Reason.MODEL_REFUSED)])
    store.write(fold, [Closed(study_instance_uid=STUDY, at=0.0, after_offset=1)])
    assert STUDY not in fold.studies
    store.write(fold, [scored(0, LOUD)])
    (image,) = store.images()
    assert (image.outcome, image.settlements) == (ImageOutcome.SCORED, 1)


def test_a_rebuild_starts_from_nothing_and_ends_with_the_same(store: Store) -> None:
    """Emptied in part or whole: left-overs do not add to what the log says."""
    store.resume(LOG)
    for lost in ([store.keys.partition(0)], store.client.keys(f"{store.keys.prefix}*")):
        store.client.delete(*lost)
        store.resume(LOG)
        assert store.settlements() == [1, 1]


def test_a_multi_frame_image_is_settled_with_its_last_frame(store: Store) -> None:
    """Frames of one image in several batches: 0, 0, 1, and 1 when one comes again."""
    fold = store.taken()
    seen = []
    for event in (
        arrived(0, frames=2),
        scored(0, frame=0, frames=2),
        scored(0, frame=1, frames=2),
        scored(0, frames=2),
    ):
        store.write(fold, [event])
        seen += store.settlements()
    assert seen == [0, 0, 1, 1]


def test_a_zombie_adds_nothing(store: Store) -> None:
    """Its batch holds a settlement that the new owner has written too: refused, still 1."""
    zombie = store.taken("zombie")
    late = store.batch(zombie, LOG[:2])
    store.resume(LOG)
    assert store.view.apply(zombie.taken, late, late.told) is Outcome.STALE
    assert store.settlements() == [1, 1]


SENT_TWICE = ("== batch.upto then return 'ok' end", "== '' then return 'ok' end")
FENCE = ("if held ~= 'ok' then return held end", "")
LATER = ("tonumber(stored[1]) > tonumber(study.offset)", "false")


def _without(store: Store, *guards: tuple[str, str]) -> None:
    """Takes guards out of the script that writes: what the store would do then."""
    source = "\n".join((Path("worker/flagging") / f"{part}.lua").read_text("utf-8") for part in ("keys", "apply"))
    for held, instead in guards:
        assert held in source
        source = source.replace(held, instead)
    store.view._scripts["apply"] = store.client.register_script(source)


def test_without_its_guard_a_script_that_is_sent_twice_shows_2(store: Store) -> None:
    """The count can fail: a script that is not idempotent, and a client that sends it again after a lost answer."""
    fold = store.taken()
    store.write(fold, [arrived(0)])
    batch = store.batch(fold, [scored(0)])
    _without(store, SENT_TWICE, FENCE)
    for _ in range(2):
        assert store.view.apply(fold.taken, batch, batch.told) is Outcome.OK
    assert store.settlements() == [2]


def test_without_its_fence_a_zombie_shows_2(store: Store) -> None:
    """The count can fail: owner and offset unchecked, the same event takes effect through two owners."""
    store.resume(LOG[:1])
    zombie = store.taken("zombie")
    late = store.batch(zombie, LOG[1:2])
    store.resume(LOG)
    _without(store, FENCE, LATER)
    assert store.view.apply(zombie.taken, late, late.told) is Outcome.OK
    assert store.settlements()[0] == 2


def test_a_fold_that_forgets_what_it_knew_shows_2(store: Store) -> None:
    """The count can fail: a study taken up as if it were new, without emptying what is stored of it."""
    store.resume(LOG)
    fold = store.taken("forgetful")
    fold.take_up(STUDY, None)
    fold.fresh.clear()
    assert store.write(fold, [arrived(0), scored(0, QUIET)]) is Outcome.OK
    assert store.settlements() == [2, 1]
