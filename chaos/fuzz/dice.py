"""Dice: every choice that a grammar makes. One grammar serves three of them.

``Seeded`` is fast and repeatable. ``Tape`` takes its choices from bytes, so that a coverage-guided fuzzer that mutates
the bytes mutates the structure. ``chaos.fuzz.drawn`` draws from hypothesis, which shrinks what it finds.
"""

from collections.abc import Sequence
from random import Random
from typing import Protocol, TypeVar

Choice = TypeVar("Choice")


class Dice(Protocol):
    """What a grammar may ask. The first option and the low end are the plain ones: an exhausted tape chooses them."""

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""

    def chance(self, one_in: int) -> bool:
        """True once in so many times."""

    def pick(self, options: Sequence[Choice]) -> Choice:
        """One of them."""

    def octets(self, most: int) -> bytes:
        """Up to that many bytes."""


class Seeded:
    """The same choices for the same seed and number."""

    def __init__(self, seed: int, number: int = 0) -> None:
        self._random = Random(f"{seed}.{number}")

    def whole(self, low: int, high: int) -> int:
        """See Dice."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, one_in: int) -> bool:
        """See Dice."""
        return self._random.random() * one_in < 1.0

    def pick(self, options: Sequence[Choice]) -> Choice:
        """See Dice."""
        return options[int(self._random.random() * len(options))]

    def octets(self, most: int) -> bytes:
        """See Dice."""
        return self._random.randbytes(self.whole(0, most))


class Tape:
    """Choices read from bytes, the plain choice where they end."""

    def __init__(self, tape: bytes) -> None:
        self._tape, self._at = tape, 0

    def whole(self, low: int, high: int) -> int:
        """See Dice."""
        size = ((high - low).bit_length() + 7) // 8
        read = int.from_bytes(self._read(size), "little")
        return low + read % (high - low + 1)

    def chance(self, one_in: int) -> bool:
        """See Dice. Never on an exhausted tape."""
        return self.whole(0, one_in - 1) == one_in - 1

    def pick(self, options: Sequence[Choice]) -> Choice:
        """See Dice."""
        return options[self.whole(0, len(options) - 1)]

    def octets(self, most: int) -> bytes:
        """See Dice."""
        return self._read(self.whole(0, most))

    def _read(self, size: int) -> bytes:
        read = self._tape[self._at : self._at + size]
        self._at += size
        return read
