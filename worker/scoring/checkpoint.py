"""Which offsets may be committed: contiguous, and never beyond a record that is not settled (design decision 5)."""


class Checkpoint:
    """One partition's fetched records, in fetch order, and what of them is settled.

    A commit names the next offset to read, so it may stand at the first unsettled record, never after it. Gaps in the
    log (compaction, transaction markers) hold no record and need no settling.
    """

    def __init__(self) -> None:
        self._open: dict[int, None] = {}  # insertion order is offset order, so the first key is the oldest
        self._next: int | None = None

    def fetched(self, offset: int) -> bool:
        """Takes a record into custody; False for one that was already fetched."""
        if self._next is not None and offset < self._next:
            return False
        self._open[offset] = None
        self._next = offset + 1
        return True

    def skipped(self, first: int, upto: int) -> bool:
        """Records from ``first`` left the log; ``upto`` is the next that may come. Open at ``first`` until settled.

        False where they had been fetched.
        """
        if self._next is not None and first < self._next:
            return False
        self._open[first] = None
        self._next = upto
        return True

    def settled(self, offset: int) -> None:
        """The record's outcome is durable. Saying so twice changes nothing."""
        self._open.pop(offset, None)

    @property
    def committable(self) -> int | None:
        """The next offset that a new owner would have to read; None before anything was fetched."""
        return next(iter(self._open), self._next)

    @property
    def next(self) -> int | None:
        """One beyond the last fetched record; None before anything was fetched."""
        return self._next

    def __len__(self) -> int:
        """Records fetched and not settled."""
        return len(self._open)
