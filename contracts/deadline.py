"""A time budget that is handed down, instead of a timeout for each call."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock. The clock is given, so pure modules can hold one."""

    at_s: float
    clock: Callable[[], float]

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float]) -> Self:
        """A deadline that many seconds from now."""
        return cls(clock() + seconds, clock)

    def remaining_s(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self.at_s - self.clock())

    def expired(self) -> bool:
        """Whether no time is left."""
        return self.remaining_s() <= 0.0

    def within(self, seconds: float) -> float:
        """A timeout for one call: at most that many seconds, at most what is left."""
        return min(seconds, self.remaining_s())
