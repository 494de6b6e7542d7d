"""Images that wait for an outcome, by lane: how many, and since when the oldest. Pure.

Kept as images come and settle, so that telling it costs nothing on a queue of any length.
"""

from collections import Counter
from heapq import heapify, heappop, heappush

from contracts.names import Lane
from contracts.worklist import Backlog, LaneBacklog

Key = tuple[str, str]  # study and image
_SLACK = 64  # entries that no longer hold, kept before a lane's heap is built anew


class Waiting:
    """Times are epoch seconds. A heap a lane; an entry that no longer holds is dropped when it comes to the top."""

    def __init__(self) -> None:
        self._of: dict[Key, tuple[Lane, float]] = {}
        self._count: Counter[Lane] = Counter()
        self._heaps: dict[Lane, list[tuple[float, Key]]] = {lane: [] for lane in Lane}

    def __len__(self) -> int:
        return len(self._of)

    def put(self, key: Key, lane: Lane, since: float) -> None:
        """It waits since then."""
        if self._of.get(key) == (lane, since):
            return
        self.drop(key)
        self._of[key] = (lane, since)
        self._count[lane] += 1
        heappush(self._heaps[lane], (since, key))
        if len(self._heaps[lane]) > 2 * self._count[lane] + _SLACK:
            self._rebuild(lane)

    def drop(self, key: Key) -> None:
        """It waits no longer, if it did."""
        known = self._of.pop(key, None)
        if known is not None:
            self._count[known[0]] -= 1

    def oldest(self, lane: Lane) -> float | None:
        """Since when the lane's oldest waits; None where none does."""
        heap = self._heaps[lane]
        while heap and self._of.get(heap[0][1]) != (lane, heap[0][0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def backlog(self, now: float) -> Backlog:
        """How it stands at that time."""
        lanes = {lane: self._lane(lane, now) for lane in Lane}
        ages_s = [one.oldest_s for one in lanes.values() if one.oldest_s is not None]
        return Backlog(images=len(self), oldest_s=max(ages_s, default=None), lanes=lanes)

    def _lane(self, lane: Lane, now: float) -> LaneBacklog:
        since = self.oldest(lane)
        return LaneBacklog(images=self._count[lane], oldest_s=None if since is None else max(0.0, now - since))

    def _rebuild(self, lane: Lane) -> None:
        self._heaps[lane] = [(since, key) for key, (of, since) in self._of.items() if of is lane]
        heapify(self._heaps[lane])
