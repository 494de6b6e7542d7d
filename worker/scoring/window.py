"""The in-flight window: how many records and bytes may be fetched and not yet settled."""

from collections import Counter

from contracts.names import Lane

SLICE_BYTES = 512 * 1024  # a CT slice: what a record is taken to be before a larger one was seen
# Of the window. The rest of ROUTINE_SHARE is kept free, so that a stat scan always finds room. RESERVED is routine's
# own: stat that filled everything kept routine from being fetched at all, and its turn (``draining``) never came.
ROUTINE_SHARE = 0.75
RESERVED = 0.125


class Window:
    """Counts records and bytes in custody. One record always fits into an empty window, however large it is."""

    def __init__(self, images: int, size_bytes: int) -> None:
        self._limit = (images, size_bytes)
        self._images: Counter[Lane] = Counter()
        self._bytes: Counter[Lane] = Counter()
        self._largest_bytes = SLICE_BYTES

    @property
    def images(self) -> int:
        """Records in custody."""
        return self._images.total()

    @property
    def size_bytes(self) -> int:
        """Of those."""
        return self._bytes.total()

    def add(self, lane: Lane, size_bytes: int) -> None:
        """A record was fetched."""
        self._images[lane] += 1
        self._bytes[lane] += size_bytes
        self._largest_bytes = max(self._largest_bytes, size_bytes)

    def remove(self, lane: Lane, size_bytes: int) -> None:
        """A record was settled or dropped."""
        self._images[lane] -= 1
        self._bytes[lane] -= size_bytes

    def room(self, lane: Lane) -> int:
        """How many more records of a lane may be fetched now.

        Their sizes are not known before: each is taken to be as large as the largest so far.
        """
        most, most_bytes = (
            self._left(lane, limit, held) for limit, held in zip(self._limit, (self._images, self._bytes), strict=True)
        )
        return max(min(most, most_bytes // self._largest_bytes), 0 if self.images else 1)

    @staticmethod
    def _left(lane: Lane, limit: int, held: Counter[Lane]) -> int:
        reserved, free = int(limit * RESERVED) or int(limit > 1), limit - held.total()
        if lane is Lane.STAT:
            return min(free, limit - reserved - held[lane])
        return max(min(free, reserved - held[lane]), max(1, int(limit * ROUTINE_SHARE)) - held.total())
