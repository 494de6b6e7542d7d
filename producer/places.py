"""Who is inside a door and who still waits in it: one greedy or silent peer must not lock out the others. Pure.

A connection waits until it has asked for something, and then is busy. Waiting costs us little, so nobody is turned away
at first: over the limit the one that waited longest, of the address with most of them, gives way. Real peers ask within
milliseconds. Busy ones are counted altogether, for each address, and for each calling title at one address. One address
alone may have its limit; beside others, its limit's share of the seats that they leave (a dynamic threshold: Choudhury
and Hahne, IEEE/ACM ToN 1998), so that two greedy ones together do not take everything.
"""

import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Seats:
    """How many may wait, and how many may be busy: altogether, of one address, of one title at one address."""

    waiting: int
    busy: int
    per_address: int
    per_title: int


@dataclass(frozen=True, slots=True)
class _Place:
    address: str
    since_s: float
    busy: bool = False
    title: str = ""


class Places:
    """Connections by any hashable key. Thread-safe."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self._taken: dict[Hashable, _Place] = {}
        self._lock = threading.Lock()

    @property
    def busy(self) -> int:
        """How many asked, were let in and are still there."""
        with self._lock:
            return sum(place.busy for place in self._taken.values())

    def waiting(self) -> list[Hashable]:
        """Those that asked for nothing yet."""
        with self._lock:
            return [key for key, place in self._taken.items() if not place.busy]

    def enter(self, key: Hashable, address: str, now_s: float) -> list[Hashable]:
        """A new connection waits. Returns those that give way to it: they have no place any more."""
        with self._lock:
            self._taken[key] = _Place(address, now_s)
            leaving = []
            while sum(not place.busy for place in self._taken.values()) > self._seats.waiting:
                leaving.append(self._first_to_go())
                del self._taken[leaving[-1]]
            return leaving

    def take(self, key: Hashable, title: str = "") -> bool:
        """It asked: whether it may be busy. False also where it had to give way in the meantime."""
        with self._lock:
            place = self._taken.get(key)
            if place is None or not (place.busy or self._room(place.address, title)):
                return False
            self._taken[key] = replace(place, busy=True, title=title)
            return True

    def rest(self, key: Hashable, now_s: float) -> None:
        """It waits again: what it asked for is done, or it is silent in the middle of it."""
        with self._lock:
            if key in self._taken:
                self._taken[key] = replace(self._taken[key], busy=False, since_s=now_s)

    def resume(self, key: Hashable) -> None:
        """It goes on with what it was let in for: no limit is asked again."""
        with self._lock:
            if key in self._taken:
                self._taken[key] = replace(self._taken[key], busy=True)

    def leave(self, key: Hashable) -> None:
        """It is gone."""
        with self._lock:
            self._taken.pop(key, None)

    def _room(self, address: str, title: str) -> bool:
        busy = [place for place in self._taken.values() if place.busy]
        here = [place for place in busy if place.address == address]
        left = self._seats.busy - (len(busy) - len(here))  # by the others
        return (
            len(here) < left
            and len(here) * self._seats.busy < self._seats.per_address * left
            and sum(place.title == title for place in here) < self._seats.per_title
        )

    def _first_to_go(self) -> Hashable:
        waiting = [(key, place) for key, place in self._taken.items() if not place.busy]
        crowd = Counter(place.address for _, place in waiting)
        return min(waiting, key=lambda entry: (-crowd[entry[1].address], entry[1].since_s))[0]
