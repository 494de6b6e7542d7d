"""How far an answer can be trusted."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.worklist import Backlog, PartitionStatus, QueueStatus
from worklist.status import standing
from worklist.view import PartitionView

STALE_S = 30.0
READY, REBUILDING = PartitionStatus.READY.value, PartitionStatus.REBUILDING.value

VIEWS = st.dictionaries(
    st.integers(0, 5), st.tuples(st.sampled_from([READY, REBUILDING, "unheard-of"]), st.floats(0, 100)), max_size=6
).map(lambda views: [PartitionView(n, status, silent) for n, (status, silent) in views.items()])


def test_ok_needs_every_partition_ready_and_heard() -> None:
    """Four of four, all ready, all heard: ok and no sentence."""
    judged = standing([PartitionView(n, READY, 1.0) for n in range(4)], 4, STALE_S)
    assert judged.status is QueueStatus.OK
    assert judged.detail == ""


def test_an_empty_store_is_rebuilding() -> None:
    """Emptied or fresh: nothing reports, so nothing can be said to be complete."""
    judged = standing([], 2, STALE_S)
    assert judged.status is QueueStatus.REBUILDING
    assert "partitions 0, 1" in judged.detail


def test_a_silent_owner_is_degraded_and_named() -> None:
    """A dead owner's partition moves no more: that is worse than one being rebuilt, and is told first."""
    views = [PartitionView(0, REBUILDING, 1.0), PartitionView(3, READY, STALE_S + 1)]
    judged = standing(views, 4, STALE_S)
    assert judged.status is QueueStatus.DEGRADED
    assert "partition 3" in judged.detail


def test_a_store_that_its_owners_have_not_seen_since_it_started_is_not_ok() -> None:
    """It may hold an older view that says *ready* of itself."""
    views = [PartitionView(0, READY, 1.0), PartitionView(1, READY, 1.0, seen=False)]
    judged = standing(views, 2, STALE_S)
    assert judged.status is QueueStatus.REBUILDING
    assert "partition 1" in judged.detail


def test_a_view_that_is_older_than_stale_is_not_ok() -> None:
    """Its owner lives, but has results to read: an image may have come of which nothing is told yet."""
    late = Backlog(behind_s=STALE_S + 1)
    judged = standing([PartitionView(0, READY, 1.0), PartitionView(1, READY, 1.0, backlog=late)], 2, STALE_S)
    assert judged.status is QueueStatus.DEGRADED
    assert "partition 1 shows what was known 31 s ago" in judged.detail


@given(VIEWS, st.integers(1, 6))
def test_never_ok_with_a_doubt(views: list[PartitionView], count: int) -> None:
    """Ok exactly when every partition of the count is there, ready and heard; else there is a sentence why."""
    judged = standing(views, count, STALE_S)
    sure = {p.number for p in views if p.status == READY and p.silent_s <= STALE_S}
    expected = sure >= set(range(count)) and len(sure) == len(views)
    assert (judged.status is QueueStatus.OK) == expected
    assert bool(judged.detail) != expected
