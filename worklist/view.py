"""What the room reads from the view that flagging keeps: places of the queue, partitions, one study, live changes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.worklist import Backlog, Change, HistoryEntry, ImageItem, WorklistItem
from worklist.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Place:
    """One study in reading order. ``item`` is the stored JSON, None where the store has lost it."""

    rank: str
    study_instance_uid: str
    item: bytes | None

    @property
    def cursor(self) -> Cursor:
        """The place, to go on from."""
        return Cursor(self.rank, self.study_instance_uid)


@dataclass(frozen=True, slots=True)
class PartitionView:
    """How far one partition's owner has come, and for how many seconds it has been silent, by Redis's own clock.

    ``seen``: the owner has seen this life of the store, with all that it dropped by itself. A store that has just been
    started may hold an older view, and say *ready* of it. ``backlog``: as old as the owner is silent.
    """

    number: int
    status: str
    silent_s: float
    seen: bool = True
    backlog: Backlog | None = None

    @property
    def behind_s(self) -> float:
        """Age of the last event that the owner has folded in, where later ones wait; 0 where none does."""
        return self.backlog.behind_s if self.backlog else 0.0


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of the queue, read at one instant. ``first`` is the 0-based place of ``places[0]``.

    ``expected``: how many partitions must report before the view is complete.
    """

    total: int
    first: int
    places: Sequence[Place]
    partitions: Sequence[PartitionView]  # those that report
    expected: int = 0


@dataclass(frozen=True, slots=True)
class StudyView:
    """All that is stored of one study, with its place (0-based; None: not in the queue), read at one instant."""

    item: WorklistItem | None
    images: tuple[ImageItem, ...]
    history: tuple[HistoryEntry, ...]
    place: int | None
    partitions: Sequence[PartitionView]
    expected: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """Oldest and newest id that the stream of live changes still holds; None: it holds nothing."""

    first: str | None
    last: str | None

    def holds_after(self, position: str) -> bool:
        """Whether nothing that came after ``position`` was trimmed or lost. Raises ValueError if it is no id."""
        here = id_order(position)
        if self.first is None or self.last is None:
            return here == _BEGINNING
        return id_order(self.first) <= here <= id_order(self.last)


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One live change: its id in the stream, what happened, the item with its present position."""

    id: str
    change: Change
    item: WorklistItem


class Source(Protocol):
    """Where pages come from: the view itself, or what is remembered of it while it is away."""

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """The places that follow ``after`` (None: from the front). Raises PeerError."""


class View(Source, Protocol):
    """The view in Redis. Every method raises PeerError when it does not answer, DecodeError on what it cannot read."""

    async def study(self, study_instance_uid: str) -> StudyView:
        """One study."""

    async def bounds(self) -> Bounds:
        """What the stream of live changes holds."""

    async def changes(self, after: str, limit: int, wait_s: float = 0.0) -> tuple[str, Sequence[StreamChange]]:
        """Changes behind ``after``, oldest first, and the id to go on from; waits so long for a first one."""

    async def close(self) -> None:
        """Gives the connections back."""


BEGINNING_ID = "0-0"
_BEGINNING = (0, 0)
_ID_CHARS_MAX = 41  # two 64-bit numbers and a dash


def id_order(stream_id: str) -> tuple[int, int]:
    """A stream id as Redis orders it. Raises ValueError on anything but ``<ms>-<seq>``."""
    if len(stream_id) > _ID_CHARS_MAX or not stream_id.isascii():
        raise ValueError("not a stream id")
    ms, dash, seq = stream_id.partition("-")
    if not dash or not (ms.isdigit() and seq.isdigit()):
        raise ValueError("not a stream id")
    return int(ms), int(seq)
