"""Two bounded memories that all doors share: what was acknowledged, and how many bytes are in hand."""

import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Protocol, Self

from contracts.errors import Rejected
from contracts.reasons import Reason
from contracts.scans import ScanHeaders

Key = tuple[str, str, str, str]


class Acknowledged:
    """Images this process saw acknowledged by the broker: sent again, they are told Success and not sent on.

    The lane is part of the key: an image sent again as stat goes out again, into the faster lane. Entries are kept
    for an hour, because a sender's retry comes within minutes and what the log holds may change in the long run.
    """

    def __init__(self, limit: int = 50_000, keep_s: float = 3600.0) -> None:
        self._limit, self._keep_s = limit, keep_s
        self._seen: OrderedDict[Key, float] = OrderedDict()
        self._lock = threading.Lock()

    @staticmethod
    def _key(headers: ScanHeaders) -> Key:
        return (headers.sop_instance_uid, headers.pixel_digest, headers.digest, headers.lane.value)

    def knows(self, headers: ScanHeaders, now_s: float) -> bool:
        """Whether these very bytes were acknowledged within the hour. ``now_s``: any monotonic clock."""
        with self._lock:
            since = self._seen.get(self._key(headers))
        return since is not None and now_s - since <= self._keep_s

    def remember(self, headers: ScanHeaders, now_s: float) -> None:
        """Only after the broker acknowledged both records."""
        with self._lock:
            self._seen[self._key(headers)] = now_s
            self._seen.move_to_end(self._key(headers))
            while len(self._seen) > self._limit:
                self._seen.popitem(last=False)

    def forget(self) -> None:
        """A broker that keeps nothing was lost: what it acknowledged is gone."""
        with self._lock:
            self._seen.clear()


class Room(Protocol):
    """Memory that may be had, or not."""

    def take(self, size_bytes: int) -> bool:
        """False, and nothing taken, where there is too little."""

    def give(self, size_bytes: int) -> None:
        """Hands back what was taken."""


class Budget:
    """Bytes that all doors together may hold of objects not yet settled.

    ``share`` of them (0…1) at most for one remote address: who sends a large object and never its end keeps what it
    has, and the others still find room.
    """

    def __init__(self, limit_bytes: int, share: float = 1.0) -> None:
        self.limit_bytes = limit_bytes
        self._of_one_bytes = int(limit_bytes * share)
        self._held_bytes = 0
        self._held_by: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held_bytes(self) -> int:
        """Held now."""
        return self._held_bytes

    def of(self, address: str) -> Room:
        """What a peer at that address may take."""
        return _Share(self, address)

    def take(self, size_bytes: int, address: str = "") -> bool:
        """False, and nothing taken, where it would go over the limit, or over the share of an address."""
        with self._lock:
            fits = self._held_bytes + size_bytes <= self.limit_bytes
            if address:
                fits = fits and self._held_by[address] + size_bytes <= self._of_one_bytes
            self._count(size_bytes if fits else 0, address)
        return fits

    def hold(self, size_bytes: int, address: str = "") -> None:
        """Counts what is here already, whether it fits or not; ``give`` ends it."""
        with self._lock:
            self._count(size_bytes, address)

    def give(self, size_bytes: int, address: str = "") -> None:
        """Hands back what was taken."""
        with self._lock:
            self._count(-size_bytes, address)

    def _count(self, size_bytes: int, address: str) -> None:
        self._held_bytes += size_bytes
        if address:
            self._held_by[address] += size_bytes
            if not self._held_by[address]:
                del self._held_by[address]  # addresses come and go without end


@dataclass(frozen=True, slots=True)
class _Share:
    budget: Budget
    address: str

    def take(self, size_bytes: int) -> bool:
        return self.budget.take(size_bytes, self.address)

    def give(self, size_bytes: int) -> None:
        self.budget.give(size_bytes, self.address)


class Loan:
    """Bytes held for one object beyond those received; all are given back at the end. A context manager."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._size_bytes = budget, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.give(self._size_bytes)
        self._size_bytes = 0

    def take(self, size_bytes: int) -> None:
        """So many more. Raises Rejected(BUFFER_FULL) where the budget has no more."""
        if not self._budget.take(size_bytes):
            raise Rejected(Reason.BUFFER_FULL)
        self._size_bytes += size_bytes
