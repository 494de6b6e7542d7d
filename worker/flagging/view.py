"""One partition's part of the view: records in, one atomic write out. Pure.

Studies not in memory are handed in by whoever owns the store; closed ones leave memory once they are written.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from contracts import events
from contracts.errors import DecodeError
from contracts.events import AnyEvent, Lost
from contracts.names import Lane
from contracts.settings import FlaggingSettings
from contracts.worklist import HistoryEntry, WorklistItem
from worker.flagging.study import Logged, Study
from worker.flagging.waiting import Waiting

_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1: nothing else becomes a name in Redis


@dataclass(frozen=True, slots=True)
class Raw:
    """A record of ``study.events`` as the broker gave it; ``appended_at`` in epoch seconds by the broker."""

    offset: int
    appended_at: float
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Taken:
    """What the store says of a partition to the owner who takes it.

    ``epoch`` names the log and the rebuild that offsets belong to. ``inherits``: studies of an earlier epoch are kept
    (the broker lost its log), else they are left-overs of a truncated store and built anew. ``clock``: the broker's
    time (epoch seconds) when the last owner told it, 0 where none did. ``lost``: lane → scans appended before that
    (epoch seconds) are gone. ``other_log``: what was stored belonged to another log.
    """

    number: int
    owner: str
    offset: int
    epoch: int
    inherits: bool
    clock: float = 0.0
    lost: Mapping[Lane, float] = field(default_factory=dict)
    other_log: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """One change of one study, with the row that readers see at that moment."""

    uid: str
    entry: HistoryEntry
    item: WorklistItem


@dataclass(frozen=True, slots=True)
class Write:
    """One study as it goes into the store: JSON by field name. ``fresh``: what the store may hold of it goes first."""

    uid: str
    offset: int
    rank: float
    item: str
    fold: str
    images: Mapping[str, str]
    frames: Mapping[str, str]
    history: Sequence[str]
    closed_at: float | None
    fresh: bool


@dataclass(frozen=True, slots=True)
class Batch:
    """Everything that some records of one partition do to the view, from ``expect`` to ``upto`` (next offset).

    ``lost`` as in Taken, where one of the records tells of a loss.
    """

    expect: int
    upto: int
    writes: Sequence[Write]
    told: Sequence[Told]
    unreadable: int
    expired: int
    lost: Mapping[Lane, float] | None = None


class Unfoldable(Exception):
    """Our own code failed at the event at ``offset``. What is in memory may be half changed, and is worth nothing."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"offset {offset}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Reading:
    """A record as it could be read; ``event`` None where it could not; ``uid`` "" where it names no study."""

    raw: Raw
    uid: str
    event: AnyEvent | None


def read(raw: Raw) -> Reading | None:
    """None for a tombstone. An unreadable record still names its study in its key; "" where even that fails.

    An event under another study's key is unreadable: that study's partition has an owner of its own, and two who write
    one study make nonsense of it.
    """
    if raw.value is None:
        return None
    try:
        event = events.decode_any(raw.value)
    except DecodeError:
        return Reading(raw, _uid(raw.key), None)
    if isinstance(event, Lost):
        return Reading(raw, "", event)
    uid = _uid(raw.key)
    return Reading(raw, uid, event if event.study_instance_uid == uid else None)


def _uid(key: bytes) -> str:
    first = key.split(b"|", 1)[0].decode("ascii", "replace")
    return first if _UID.fullmatch(first) else ""


@dataclass(slots=True)
class PartitionFold:
    """The studies of one partition that are open, or in hand.

    ``failed``: offset → how often folding its event failed. Once: it is taken for unreadable, which its study says.
    More often: for a record that names no study, since the study itself is what fails.
    """

    taken: Taken
    rules: FlaggingSettings
    next_offset: int
    failed: Mapping[int, int] = field(default_factory=dict)
    studies: dict[str, Study] = field(default_factory=dict)
    fresh: set[str] = field(default_factory=set)
    waiting: Waiting = field(default_factory=Waiting)
    lost: dict[Lane, float] = field(init=False)

    def __post_init__(self) -> None:
        """What an owner before this one read of losses holds on."""
        self.lost = dict(self.taken.lost)

    def readings(self, raws: Iterable[Raw]) -> list[Reading]:
        """What is new among the records. A gap is compaction's; a record before the next offset was applied."""
        new = (self._read(raw) for raw in raws if raw.offset >= self.next_offset)
        return [reading for reading in new if reading is not None]

    def _read(self, raw: Raw) -> Reading | None:
        failures = self.failed.get(raw.offset, 0)
        if not failures:
            return read(raw)
        return Reading(raw, _uid(raw.key) if failures == 1 else "", None)

    def missing(self, readings: Iterable[Reading]) -> list[str]:
        """Studies that must be looked up in the store first."""
        return list(dict.fromkeys(one.uid for one in readings if one.uid and one.uid not in self.studies))

    def take_up(self, uid: str, study: Study | None) -> None:
        """A study as the store had it, or None where it had none that counts."""
        if study is None:
            self.fresh.add(uid)
        self.studies[uid] = study or Study(uid, self.rules)
        if self.studies[uid].fold.epoch != self.taken.epoch:
            self.studies[uid].in_new_log(self.taken.epoch)
        self._await(self.studies[uid], self.studies[uid].images)

    def fold(self, readings: Sequence[Reading], upto: int) -> Batch:
        """Folds the records in. The store must then take the batch, or this object is worth nothing any more.

        Raises Unfoldable; this object is worth nothing then either.
        """
        told: list[Told] = []
        expired = 0
        losses = [(one.event, one.raw) for one in readings if isinstance(one.event, Lost)]
        for event, raw in losses:
            self._lose(event, raw)
        for one in readings:
            with _blamed(one.raw.offset):
                entries = self._apply(one) if one.uid else []
                expired += isinstance(one.event, events.Expired) and self.studies[one.uid].fold.expired
                told += [Told(one.uid, entry, self.studies[one.uid].item()) for entry in entries]
        last = {one.uid: one.raw.offset for one in readings if one.uid}
        history: dict[str, list[HistoryEntry]] = {}
        for change in told:
            history.setdefault(change.uid, []).append(change.entry)
        return Batch(
            expect=self.next_offset,
            upto=upto,
            writes=[self._write(self.studies[uid], history.get(uid, []), offset) for uid, offset in last.items()],
            told=told,
            unreadable=sum(one.event is None for one in readings),
            expired=expired,
            lost=dict(self.lost) if losses else None,
        )

    def written(self, batch: Batch) -> None:
        """The store took the batch."""
        self.next_offset = batch.upto
        for write in batch.writes:
            self.fresh.discard(write.uid)
            if self.studies[write.uid].closed:
                del self.studies[write.uid]

    def _apply(self, one: Reading) -> list[HistoryEntry]:
        study, raw = self.studies[one.uid], one.raw
        if one.event is None or isinstance(one.event, Lost):
            return study.apply_unreadable(raw.key, raw.offset, raw.appended_at)
        return study.apply(Logged(one.event, raw.offset, raw.appended_at))

    def _lose(self, event: Lost, raw: Raw) -> None:
        """Of two losses of a lane the later one says what the earlier one said."""
        if event.partition == self.taken.number:
            before = raw.appended_at if event.before is None else event.before
            self.lost[event.lane] = max(before, self.lost.get(event.lane, before))

    def _await(self, study: Study, images: Iterable[str]) -> None:
        for image in images:
            waits = study.waits(image)
            if waits is None:
                self.waiting.drop((study.uid, image))
            else:
                self.waiting.put((study.uid, image), *waits)

    def _write(self, study: Study, history: Sequence[HistoryEntry], offset: int) -> Write:
        with _blamed(offset):
            return self._as_stored(study, history)

    def _as_stored(self, study: Study, history: Sequence[HistoryEntry]) -> Write:
        touched, item = study.take_touched(), study.item()
        self._await(study, touched.images)
        images = {key: study.images[key].take().model_dump_json() for key in touched.images}
        frames = {
            frame_field(key, number): study.images[key].frames[number].model_dump_json(exclude_none=True)
            for key, number in touched.frames
        }
        return Write(
            uid=study.uid,
            offset=study.fold.offset,
            rank=item.rank,
            item=item.model_dump_json(),
            fold=study.stored_fold().model_dump_json(),
            images=images,
            frames=frames,
            history=[entry.model_dump_json() for entry in history],
            closed_at=study.fold.closed_at if study.closed else None,
            fresh=study.uid in self.fresh,
        )


@contextmanager
def _blamed(offset: int) -> Iterator[None]:
    """Whatever goes wrong, this event has brought it."""
    try:
        yield
    except Exception as problem:
        raise Unfoldable(offset) from problem


def frame_field(image_key: str, frame: int | None) -> str:
    """The field of one frame in the ``frames:<uid>`` hash."""
    return f"{image_key}|{'' if frame is None else frame}"


def frame_of(name: str) -> tuple[str, int | None]:
    """Image key and frame of such a field."""
    image_key, _, frame = name.rpartition("|")
    return image_key, int(frame) if frame else None
