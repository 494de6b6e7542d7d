"""The in-flight window: how many records and bytes may be fetched and not yet settled."""

from contracts.names import Lane

ROUTINE_SHARE = 0.75  # of the window: the rest is kept free, so that a stat scan always finds room


class Window:
    """Counts records and bytes in custody. One record always fits into an empty window, however large it is."""

    def __init__(self, images: int, size_bytes: int) -> None:
        self._limit = (images, size_bytes)
        self.images = 0
        self.size_bytes = 0

    def add(self, size_bytes: int) -> None:
        """A record was fetched."""
        self.images += 1
        self.size_bytes += size_bytes

    def remove(self, size_bytes: int) -> None:
        """A record was settled or dropped."""
        self.images -= 1
        self.size_bytes -= size_bytes

    def room(self, lane: Lane) -> int:
        """How many more records of a lane may be fetched now; routine may not fill the whole window."""
        share = 1.0 if lane is Lane.STAT else ROUTINE_SHARE
        images, size_bytes = (limit * share for limit in self._limit)
        if self.size_bytes >= size_bytes:
            return 0 if self.images else 1
        return max(0, max(1, int(images)) - self.images)
