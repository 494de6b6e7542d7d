"""What can be fuzzed: a name, a grammar for its inputs, and the function that takes them. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from chaos.fuzz.dice import Dice

Call = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class Target:
    """``make`` builds, once, the function that raises what is not declared.

    ``share``: how many of a run's inputs it gets, against the others.
    """

    name: str
    grammar: Callable[[Dice], bytes]
    make: Callable[[], Call]
    share: int
