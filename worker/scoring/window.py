"""The in-flight window: how many records and bytes may be fetched and not yet settled."""

from contracts.names import Lane

SLICE_BYTES = 512 * 1024  # a CT slice: what a record is taken to be before a larger one was seen
ROUTINE_SHARE = 0.75  # of the window: the rest is kept free, so that a stat scan always finds room


class Window:
    """Counts records and bytes in custody. One record always fits into an empty window, however large it is."""

    def __init__(self, images: int, size_bytes: int) -> None:
        self._limit = (images, size_bytes)
        self.images = 0
        self.size_bytes = 0
        self._largest_bytes = SLICE_BYTES

    def add(self, size_bytes: int) -> None:
        """A record was fetched."""
        self.images += 1
        self.size_bytes += size_bytes
        self._largest_bytes = max(self._largest_bytes, size_bytes)

    def remove(self, size_bytes: int) -> None:
        """A record was settled or dropped."""
        self.images -= 1
        self.size_bytes -= size_bytes

    def room(self, lane: Lane) -> int:
        """How many more records of a lane may be fetched now; routine may not fill the whole window.

        Their sizes are not known before: each is taken to be as large as the largest so far.
        """
        share = 1.0 if lane is Lane.STAT else ROUTINE_SHARE
        images, size_bytes = (limit * share for limit in self._limit)
        fit = min(max(1, int(images)) - self.images, int(size_bytes - self.size_bytes) // self._largest_bytes)
        return max(fit, 0 if self.images else 1)
