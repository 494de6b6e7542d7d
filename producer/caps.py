"""What one object may cost before it is known to be good: see ``limits`` in contracts/settings.py for the reasons."""

from collections.abc import Callable
from dataclasses import dataclass

from contracts.errors import Rejected
from contracts.reasons import Reason
from contracts.settings import LimitSettings

Take = Callable[[int], None]

_DEFAULT = LimitSettings()


@dataclass(frozen=True, slots=True)
class Caps:
    """Caps on parsing and inflating one object."""

    inflate_ratio: int = _DEFAULT.inflate_ratio
    inflated_bytes: int = _DEFAULT.inflated_bytes
    depth: int = _DEFAULT.sequence_depth
    elements: int = _DEFAULT.elements
    frames: int = _DEFAULT.frames
    pixel_bytes: int = _DEFAULT.pixel_bytes

    @classmethod
    def of(cls, limits: LimitSettings) -> "Caps":
        """From the settings."""
        return cls(
            inflate_ratio=limits.inflate_ratio,
            inflated_bytes=limits.inflated_bytes,
            depth=limits.sequence_depth,
            elements=limits.elements,
            frames=limits.frames,
            pixel_bytes=limits.pixel_bytes,
        )


DEFAULT = Caps()


class Count:
    """Elements, items and fragments seen in one object."""

    def __init__(self, caps: Caps) -> None:
        self._left, self._depth = caps.elements, caps.depth

    def one(self) -> None:
        """One more. Raises Rejected(TOO_COMPLEX) beyond the cap."""
        self._left -= 1
        if self._left < 0:
            raise Rejected(Reason.TOO_COMPLEX, "elements")

    def level(self, depth: int) -> None:
        """A sequence at that depth, 1 at the top. Raises Rejected(TOO_COMPLEX) beyond the cap."""
        if depth > self._depth:
            raise Rejected(Reason.TOO_COMPLEX, "nested sequences")


def take_freely(_size_bytes: int) -> None:
    """Where nobody counts bytes."""
