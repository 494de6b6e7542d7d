"""The last list that was complete, kept for when the queue's store is away. Bounded: the front of the queue only."""

import bisect
from collections.abc import Sequence

from worklist.cursor import Cursor
from worklist.view import Page, PartitionView, Place, Source

PLACES_MAX = 2000  # about 2 kB each: 4 MB, and more studies than a department reads in a week
_PAGE = 200  # places of one round trip: half a megabyte


class Remembered:
    """A Source of what was read at ``read_at`` (epoch seconds)."""

    def __init__(self, places: Sequence[Place], total: int, read_at: float) -> None:
        self._places = tuple(places)
        self._order = [place.cursor.order for place in self._places]
        self._total = total
        self.read_at = read_at

    @property
    def whole(self) -> bool:
        """Whether nothing was left out for its size."""
        return len(self._places) >= self._total

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """As the view would have answered then, up to the last place that is remembered."""
        first = bisect.bisect_right(self._order, after.order) if after else 0
        partitions: tuple[PartitionView, ...] = ()
        return Page(self._total, first, self._places[first : first + limit], partitions)


async def remember(source: Source, read_at: float) -> Remembered:
    """Reads the front of the queue, page by page. Raises PeerError."""
    places: list[Place] = []
    after: Cursor | None = None
    while True:
        page = await source.page(after, _PAGE)
        places.extend(page.places)
        if len(page.places) < _PAGE or len(places) >= PLACES_MAX:
            return Remembered(_ordered(places), page.total, read_at)
        after = page.places[-1].cursor


def _ordered(places: Sequence[Place]) -> list[Place]:
    """A study that moved between two pages is kept once, where it was seen last."""
    latest = {place.study_instance_uid: place for place in places}
    return sorted(latest.values(), key=lambda place: place.cursor.order)
