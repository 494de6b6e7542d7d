"""Weighted draining of the two lanes: stat first, routine never starved (design decision 2)."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from contracts.names import Lane

Item = TypeVar("Item")


class Turns:
    """Whose turn it is. While both lanes wait, ``stat_weight`` stat records are taken for each routine one."""

    def __init__(self, stat_weight: int) -> None:
        self._stat_weight = stat_weight
        self._stat_in_a_row = 0  # counted only while routine waits

    def choose(self, *, stat: bool, routine: bool) -> Lane | None:
        """The lane to take from next, given which lanes wait; None where none does."""
        if not (stat and routine):
            self._stat_in_a_row = 0
            return Lane.STAT if stat else Lane.ROUTINE if routine else None
        if self._stat_in_a_row >= self._stat_weight:
            self._stat_in_a_row = 0
            return Lane.ROUTINE
        self._stat_in_a_row += 1
        return Lane.STAT


class Lanes(Generic[Item]):
    """Records that wait for a worker: first come first served within a lane."""

    def __init__(self, stat_weight: int) -> None:
        self._turns = Turns(stat_weight)
        self._waiting: dict[Lane, deque[Item]] = {lane: deque() for lane in Lane}

    def put(self, lane: Lane, item: Item) -> None:
        """Behind the others of its lane."""
        self._waiting[lane].append(item)

    def take(self) -> Item | None:
        """The next one, or None where nothing waits."""
        lane = self._turns.choose(stat=bool(self._waiting[Lane.STAT]), routine=bool(self._waiting[Lane.ROUTINE]))
        return None if lane is None else self._waiting[lane].popleft()

    def drop(self, unwanted: Callable[[Item], bool]) -> list[Item]:
        """Takes out every waiting item that is no longer wanted, and returns them."""
        dropped = [item for item in self if unwanted(item)]
        for lane, waiting in self._waiting.items():
            self._waiting[lane] = deque(item for item in waiting if not unwanted(item))
        return dropped

    def __iter__(self) -> Iterator[Item]:
        """All that wait, stat first."""
        return (item for lane in Lane for item in self._waiting[lane])

    def __len__(self) -> int:
        """How many wait."""
        return sum(len(waiting) for waiting in self._waiting.values())
