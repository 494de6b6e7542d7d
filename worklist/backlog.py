"""How far analysis is behind, over all partitions (pure)."""

from collections.abc import Sequence

from contracts.names import Lane
from contracts.worklist import Backlog, LaneBacklog, PartitionStatus
from worklist.view import PartitionView


def behind(partitions: Sequence[PartitionView], count: int, stale_s: float) -> Backlog | None:
    """Sums and maxima of what the owners tell; None where none of the ``count`` does.

    An owner that is silent or still rebuilding knows less than there is: what it told is left out of the sum, and the
    answer is not complete; nor is it where an owner has results to read and its last one is older than ``stale_s``. An
    image waits on while its owner is silent, so the seconds are added to its age.
    """
    heard = [p for p in partitions if _current(p, stale_s)]
    if not heard:
        return None
    lanes = {lane: _lane(lane, heard) for lane in Lane}
    ages_s = [one.oldest_s for one in lanes.values() if one.oldest_s is not None]
    return Backlog(
        images=sum(one.images for one in lanes.values()),
        oldest_s=max(ages_s, default=None),
        lanes=lanes,
        complete={p.number for p in heard if p.behind_s <= stale_s} >= set(range(count)),
        behind_s=max(p.behind_s for p in heard),
    )


def _current(partition: PartitionView, stale_s: float) -> bool:
    known = partition.status == PartitionStatus.READY and partition.seen and partition.backlog is not None
    return known and partition.silent_s <= stale_s


def _lane(lane: Lane, heard: Sequence[PartitionView]) -> LaneBacklog:
    told = [(p.backlog.lanes.get(lane, LaneBacklog()), max(0.0, p.silent_s)) for p in heard if p.backlog]
    ages_s = [one.oldest_s + silent_s for one, silent_s in told if one.oldest_s is not None]
    return LaneBacklog(images=sum(one.images for one, _ in told), oldest_s=max(ages_s, default=None))
