"""How far analysis is behind, over all partitions."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.names import Lane
from contracts.worklist import Backlog, LaneBacklog, PartitionStatus
from worklist.backlog import behind
from worklist.view import PartitionView

STALE_S = 30.0
READY = PartitionStatus.READY.value


def told(routine: int, oldest_s: float | None, stat: int = 0, stat_s: float | None = None) -> Backlog:
    """What an owner tells with its beat."""
    lanes = {
        Lane.ROUTINE: LaneBacklog(images=routine, oldest_s=oldest_s),
        Lane.STAT: LaneBacklog(images=stat, oldest_s=stat_s),
    }
    ages_s = [age for age in (oldest_s, stat_s) if age is not None]
    return Backlog(images=routine + stat, oldest_s=max(ages_s, default=None), lanes=lanes)


def test_partitions_are_summed_and_the_oldest_ages_while_its_owner_is_silent() -> None:
    """Counts add up a lane at a time; an age is as old as the beat, so the silence is added."""
    views = [
        PartitionView(0, READY, 1.0, backlog=told(400, 100.0)),
        PartitionView(1, READY, 5.0, backlog=told(12, 98.0, stat=3, stat_s=2.0)),
    ]
    found = behind(views, 2, STALE_S)
    assert found is not None
    assert (found.images, found.oldest_s, found.complete) == (415, 103.0, True)
    assert found.lanes[Lane.STAT] == LaneBacklog(images=3, oldest_s=7.0)
    assert found.lanes[Lane.ROUTINE] == LaneBacklog(images=412, oldest_s=103.0)


def test_nothing_that_waits_is_no_age() -> None:
    """Up to date is not "0 s behind"."""
    found = behind([PartitionView(0, READY, 1.0, backlog=told(0, None))], 1, STALE_S)
    assert found is not None
    assert (found.images, found.oldest_s, found.complete) == (0, None, True)


def test_where_nobody_tells_nobody_knows() -> None:
    """Empty store, silent or rebuilding owners, an owner of another version: null, not nothing."""
    for views in (
        [],
        [PartitionView(0, READY, STALE_S + 1, backlog=told(1, 1.0))],
        [PartitionView(0, PartitionStatus.REBUILDING.value, 1.0, backlog=told(1, 1.0))],
        [PartitionView(0, READY, 1.0)],
        [PartitionView(0, READY, 1.0, seen=False, backlog=told(1, 1.0))],
    ):
        assert behind(views, 1, STALE_S) is None


@given(st.sets(st.integers(0, 5), min_size=1), st.integers(1, 6))
def test_it_is_complete_only_with_every_partition(heard: set[int], count: int) -> None:
    """One that does not tell may hold any number of images."""
    found = behind([PartitionView(n, READY, 0.0, backlog=told(1, 1.0)) for n in heard], count, STALE_S)
    assert found is not None
    assert found.complete == (heard >= set(range(count)))
