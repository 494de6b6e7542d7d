"""What the child is doing now, in memory that outlives it: the input in hand, when it was begun, what was found.

A child that hangs in native code, or dies, tells nothing any more; its slot does.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

INPUT_BYTES = 8 * 1024**2  # the largest input that is kept
_STATE = struct.Struct("<QQdQ")  # inputs done, number in hand, begun (monotonic seconds; 0: none), length


@dataclass(frozen=True, slots=True)
class State:
    """``begun_s`` is 0 while no input is in hand."""

    done: int
    number: int
    begun_s: float
    data: bytes


class Slot:
    """One child's slot in a file. The child writes, the parent reads; a torn read costs nothing."""

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_STATE.size + INPUT_BYTES)
            self._map = mmap.mmap(file.fileno(), _STATE.size + INPUT_BYTES)

    def begin(self, done: int, number: int, data: bytes) -> None:
        """This input is in hand from now on."""
        kept = data[:INPUT_BYTES]
        self._map[_STATE.size : _STATE.size + len(kept)] = kept
        _STATE.pack_into(self._map, 0, done, number, time.monotonic(), len(kept))

    def end(self, done: int, number: int) -> None:
        """It is done."""
        _STATE.pack_into(self._map, 0, done, number, 0.0, 0)

    def read(self) -> State:
        """As it stands."""
        done, number, begun_s, length = _STATE.unpack_from(self._map, 0)
        return State(done, number, begun_s, self._map[_STATE.size : _STATE.size + length])

    def close(self) -> None:
        """Lets the memory go."""
        self._map.close()
