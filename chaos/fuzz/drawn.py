"""Dice drawn from hypothesis: what it finds it shrinks."""

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from chaos.fuzz.dice import Choice, Dice


class Drawn:
    """``Dice`` over hypothesis's ``draw``."""

    def __init__(self, draw: DrawFn) -> None:
        self._draw = draw

    def whole(self, low: int, high: int) -> int:
        """See Dice."""
        return int(self._draw(st.integers(low, high)))

    def chance(self, one_in: int) -> bool:
        """See Dice. Shrinks towards false."""
        return self.whole(0, one_in - 1) == one_in - 1

    def pick(self, options: Sequence[Choice]) -> Choice:
        """See Dice."""
        return options[self.whole(0, len(options) - 1)]

    def octets(self, most: int) -> bytes:
        """See Dice."""
        return bytes(self._draw(st.binary(max_size=most)))


def inputs(grammar: Callable[[Dice], bytes]) -> SearchStrategy[bytes]:
    """What a grammar makes, as a strategy."""

    @st.composite
    def made(draw: DrawFn) -> bytes:
        return grammar(Drawn(draw))

    strategy: Any = made()
    return strategy
