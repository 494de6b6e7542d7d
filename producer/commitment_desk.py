"""The reports that this process owes: one for each request in its partitions of ``commitments`` that has no tombstone.

The log decides what is owed; the desk adds what only this process knows: which association a request came on, when the
next attempt is due, which peer is being spoken to. Thread-safe; the clock is given.

What is owed is held in memory, each peer's within a share: who asks without end and takes no report fills its own.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from producer.memory import Budget


class Route(Protocol):
    """The association that a request came on."""

    def open(self) -> bool:
        """Whether a report can still go over it."""

    def report(self, information: Callable[[bool], tuple[int, bytes]]) -> None:
        """Returns once the peer answered Success. ``information``: implicit VR? → event type and encoded data set.

        Raises PeerAway, PeerTimeout, PeerRefused.
        """


Key = tuple[int, bytes]  # partition, record key


@dataclass(eq=False, slots=True)
class Pending:
    """One request whose report is owed. ``since_s``: epoch seconds by the broker; ``due_s``: by the given clock."""

    partition: int
    key: bytes
    offset: int
    value: bytes = field(repr=False)
    since_s: float
    due_s: float
    address: str = ""  # where it was asked from: whose share it takes
    attempts: int = 0
    why: str = ""  # the last attempt did not get through
    outcome: str = ""  # it did, or was the last: what is missing is the tombstone

    @property
    def peer(self) -> str:
        """The requestor's AE title, which the key begins with: one report at a time for each."""
        return self.key.rpartition(b"|")[0].decode("utf-8", "replace")


class Desk:
    """``clock``: monotonic seconds. ``settle_s``: how long a requestor that hangs up at once is given to do so.

    ``room``: for what is owed, altogether and for one address. Whoever appends a request takes room for as long as that
    takes; what lies in our partitions is held, whoever appended it.
    """

    def __init__(self, clock: Callable[[], float], settle_s: float, room: Budget) -> None:
        self._clock, self._settle_s, self.room = clock, settle_s, room
        self._lock = threading.Lock()
        self._pending: dict[Key, Pending] = {}
        self._routes: dict[bytes, Route] = {}
        self._complete: set[int] = set()  # partitions of ours, read up to where the log ended
        self._ours: set[int] = set()
        self._busy: set[str] = set()

    # What the log says.

    def began(self, partition: int) -> None:
        """The partition is ours and is read from its beginning: nothing is reported before its end is reached."""
        self.left(partition)
        with self._lock:
            self._ours.add(partition)

    def left(self, partition: int) -> None:
        """The partition is another's now, with all that is owed in it."""
        with self._lock:
            self._ours.discard(partition)
            self._complete.discard(partition)
            for key in [key for key in self._pending if key[0] == partition]:
                self._drop(key)

    def complete(self, partition: int) -> None:
        """Its end was reached once: what is pending now is owed."""
        with self._lock:
            if partition in self._ours:
                self._complete.add(partition)

    def asked(self, partition: int, key: bytes, offset: int, value: bytes, since_s: float, address: str = "") -> None:
        """A request lies there; it replaces an older one of the same key. ``address``: where it was asked from."""
        with self._lock:
            if partition not in self._ours:
                return  # fetched before the partition was taken from us
            self._drop((partition, key))
            due_s = self._clock() + self._settle_s
            self._pending[partition, key] = Pending(partition, key, offset, value, since_s, due_s, address)
            self.room.hold(len(value), address)

    def reported(self, partition: int, key: bytes) -> None:
        """A tombstone lies there."""
        with self._lock:
            self._drop((partition, key))
            self._routes.pop(key, None)

    # What the DICOM door does.

    def choose(self, fallback: int) -> int:
        """The partition for a new request: one of ours, so that its report can take the association it came on."""
        with self._lock:
            ours = sorted(self._complete or self._ours)
        return ours[fallback % len(ours)] if ours else fallback

    def same(self, key: bytes) -> bytes | None:
        """The pending request of that key, as it lies in the log."""
        with self._lock:
            return next((pending.value for (_, other), pending in self._pending.items() if other == key), None)

    def came_on(self, key: bytes, route: Route) -> None:
        """Remembers the association of a request, and forgets those that are over."""
        with self._lock:
            self._routes = {old: kept for old, kept in self._routes.items() if kept.open()}
            self._routes[key] = route
            for pending in [pending for (_, other), pending in self._pending.items() if other == key]:
                pending.due_s = self._clock() + self._settle_s

    # What the reporters do.

    def take(self) -> Pending | None:
        """A report that is due, oldest request first, whose peer nobody speaks to; end with ``done`` or ``later``."""
        now_s = self._clock()
        with self._lock:
            due = [p for p in self._pending.values() if p.due_s <= now_s and p.partition in self._complete]
            free = [pending for pending in due if pending.peer not in self._busy]
            if not free:
                return None
            first = min(free, key=lambda pending: pending.due_s)
            self._busy.add(first.peer)
            return first

    def route(self, pending: Pending) -> Route | None:
        """The association that the request came on, if it is still open."""
        with self._lock:
            route = self._routes.get(pending.key)
        return route if route is not None and route.open() else None

    def later(self, pending: Pending, after_s: float, why: str = "") -> None:
        """Not now."""
        with self._lock:
            self._busy.discard(pending.peer)
            pending.due_s, pending.why = self._clock() + after_s, why

    def done(self, pending: Pending) -> None:
        """Reported, or given up, and the log says so."""
        with self._lock:
            self._busy.discard(pending.peer)
            if self._pending.get((pending.partition, pending.key)) is pending:
                self._drop((pending.partition, pending.key))
                self._routes.pop(pending.key, None)

    def current(self, pending: Pending) -> bool:
        """Whether no newer request has taken its key; one of a partition that has left is taken as current."""
        with self._lock:
            now = self._pending.get((pending.partition, pending.key))
            return now is pending or (now is None and pending.partition not in self._ours)

    def owed(self) -> list[str]:
        """Why each report still waits: empty for one that was not yet tried."""
        with self._lock:
            return [pending.why for pending in self._pending.values()]

    def _drop(self, key: Key) -> None:
        gone = self._pending.pop(key, None)
        if gone is not None:
            self.room.give(len(gone.value), gone.address)
