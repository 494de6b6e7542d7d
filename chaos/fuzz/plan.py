"""Which target gets which inputs: by shares, in chunks, so that a long run can be stopped and taken up again. Pure.

A chunk's inputs of a target follow those of the chunk before: no input is made twice, and none depends on where the
run was stopped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.fuzz.result import shared

DOORS_SHARE = 0.12  # of all inputs: a stream at a real socket costs a hundred times what a function call costs
CHUNK_INPUTS = 50_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Target → (first number, how many)."""

    pure: Mapping[str, tuple[int, int]]
    doors: Mapping[str, tuple[int, int]]

    @property
    def inputs(self) -> int:
        """Of all targets."""
        return sum(count for _, count in (*self.pure.values(), *self.doors.values()))


def chunks_of(inputs: int, pure: Mapping[str, int], doors: Mapping[str, int], size: int = CHUNK_INPUTS) -> list[Chunk]:
    """So many inputs over the targets by their shares. The sum is exact."""
    at_doors = (inputs if not pure else 0 if not doors else int(inputs * DOORS_SHARE)) if doors else 0
    count = max(1, -(-inputs // size))
    at_doors_each, at_pure_each = _even(at_doors, count), _even(inputs - at_doors, count)
    return _numbered([(shared(p, pure), shared(d, doors)) for p, d in zip(at_pure_each, at_doors_each, strict=True)])


def _numbered(given: Sequence[tuple[Mapping[str, int], Mapping[str, int]]]) -> list[Chunk]:
    reached: dict[str, int] = {}
    chunks = []
    for pure, doors in given:
        chunks.append(Chunk(_placed(pure, reached), _placed(doors, reached)))
        for name, count in (*pure.items(), *doors.items()):
            reached[name] = reached.get(name, 0) + count
    return chunks


def _placed(counts: Mapping[str, int], reached: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (reached.get(name, 0), count) for name, count in counts.items() if count}


def _even(whole: int, parts: int) -> list[int]:
    return [whole // parts + (number < whole % parts) for number in range(parts)]
