"""Custody of records: fetched, waiting, in work, settled. Knows no broker and no clock; safe from many threads.

A record is in custody from its fetch until it is settled or its partition goes to another owner. What a worker still
does for a record that was dropped has no effect here: its ticket is no longer good.
"""

import threading
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace

from contracts.names import Lane
from contracts.scans import Place
from contracts.settings import ScoringSettings
from worker.scoring.checkpoint import Checkpoint
from worker.scoring.draining import Lanes
from worker.scoring.memory import Image, Memory
from worker.scoring.window import Window

Partition = tuple[str, int]  # topic, number
NO_TICKET = 0  # of a partition that is not ours
MEMORY_IMAGES = 20_000  # for each partition: some 50 studies, 3 MB; a resend soon after is what it is for


class Dropped(Exception):
    """The record in work is no longer ours to settle, or time is up: stop working on it. Nothing is lost by it."""


@dataclass(frozen=True, slots=True, eq=False)
class Fetched:
    """One record as it was fetched. ``ticket`` says under which assignment of its partition."""

    place: Place
    lane: Lane
    key: bytes
    headers: tuple[tuple[str, bytes], ...]
    value: bytes
    appended_s: float  # epoch seconds, by the broker
    ticket: int = 0

    @property
    def partition(self) -> Partition:
        """The partition it came from."""
        return (self.place.topic, self.place.partition)

    @property
    def size_bytes(self) -> int:
        """What it costs in the window."""
        return len(self.value)


@dataclass(slots=True)
class _Owned:
    ticket: int
    checkpoint: Checkpoint
    committed: int | None = None
    appended_s: dict[int, float] = field(default_factory=dict)  # of unsettled records, by offset


class Custody:
    """Everything fetched and not yet settled, and what is known of it."""

    def __init__(self, settings: ScoringSettings) -> None:
        self._changed = threading.Condition()
        self._lanes: Lanes[Fetched] = Lanes(settings.stat_weight)
        self._window = Window(settings.in_flight_images, settings.in_flight_bytes)
        self._memory = Memory(MEMORY_IMAGES)
        self._owned: dict[Partition, _Owned] = {}
        self._in_work: dict[Image, list[Fetched]] = {}  # image in work → resends of it that wait for its end
        self._working: dict[Fetched, None] = {}
        self._tickets = 0
        self._closed = False

    # Partitions

    def assign(self, partitions: Iterable[Partition]) -> None:
        """These are ours now, from their commit on."""
        with self._changed:
            for partition in partitions:
                self._tickets += 1
                self._owned[partition] = _Owned(self._tickets, Checkpoint())

    def drop(self, partitions: Collection[Partition]) -> None:
        """These are another's now: what waits is dropped, what is in work loses its ticket."""
        with self._changed:
            for partition in partitions:
                self._owned.pop(partition, None)
                self._memory.forget(partition[1])
            gone = self._lanes.drop(lambda record: not self._good(record))
            for record in (*gone, *(r for r in self._working if not self._good(r))):
                self._release(record)

    def tickets(self) -> dict[Partition, int]:
        """Of what is owned now: another one after each assignment."""
        with self._changed:
            return {partition: owned.ticket for partition, owned in self._owned.items()}

    @property
    def partitions(self) -> frozenset[Partition]:
        """Owned now."""
        return frozenset(self._owned)

    # Records

    def add(self, record: Fetched, ticket: int | None = None) -> bool:
        """Takes a fetched record into custody; False where it is not ours or was fetched before.

        ``ticket``: its partition's before the fetch. Under a later one, what an earlier assignment fetched would stand
        in the way of what lies before it and is fetched again. None: nothing was assigned since.
        """
        with self._changed:
            owned = self._owned.get(record.partition)
            if owned is None or self._closed or ticket not in (None, owned.ticket):
                return False
            if not owned.checkpoint.fetched(record.place.offset):
                return False
            owned.appended_s[record.place.offset] = record.appended_s
            self._window.add(record.lane, record.size_bytes)
            self._lanes.put(record.lane, replace(record, ticket=owned.ticket))
            self._changed.notify()
            return True

    def wait(self, timeout_s: float) -> bool:
        """Until a record waits for a worker, at most that long."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: len(self._lanes) or self._closed, timeout_s) and self._lanes)

    def take(self) -> Fetched | None:
        """The next record to work on, if one waits."""
        with self._changed:
            record = self._lanes.take()
            if record is not None:
                self._working[record] = None
            return record

    def gone(self, record: Fetched, timeout_s: float) -> bool:
        """Waits that long, or until the record is no longer to be worked on: another's now, or the service drains."""
        with self._changed:
            return self._changed.wait_for(lambda: self._closed or not self._good(record), timeout_s)

    def settle(self, record: Fetched) -> bool:
        """The record's outcome is durable; False where it is no longer ours (its new owner settles it again)."""
        with self._changed:
            owned = self._owned.get(record.partition)
            if owned is None or owned.ticket != record.ticket or record not in self._working:
                return False
            owned.checkpoint.settled(record.place.offset)
            owned.appended_s.pop(record.place.offset, None)
            self._release(record)
            return True

    def hand_back(self, record: Fetched) -> None:
        """A worker gives the record up unsettled: its partition's next owner starts from it. Twice changes nothing."""
        with self._changed:
            if record in self._working:
                self._release(record)

    # Losses

    def lose(self, partition: Partition, first: int, upto: int) -> int | None:
        """Records left the log before they were fetched: nothing beyond them is committed before ``told``.

        Returns the ticket for that; None where the partition is not ours, or they had been fetched.
        """
        with self._changed:
            owned = self._owned.get(partition)
            return owned.ticket if owned is not None and owned.checkpoint.skipped(first, upto) else None

    def told(self, partition: Partition, first: int, ticket: int) -> None:
        """The log knows of the loss that began at ``first``."""
        with self._changed:
            owned = self._owned.get(partition)
            if owned is not None and owned.ticket == ticket:
                owned.checkpoint.settled(first)

    # Images

    def claim(self, image: Image, record: Fetched) -> bool | None:
        """True: score it. False: it was scored already. None: it is in work, and the record waits for its end."""
        with self._changed:
            if self._memory.knows(record.place.partition, image):
                return False
            if image in self._in_work:
                self._in_work[image].append(record)
                return None
            self._in_work[image] = []
            return True

    def unclaim(self, image: Image, record: Fetched, *, scored: bool) -> list[Fetched]:
        """The claimed image is done. Returns the resends that waited for it: duplicates where it was scored.

        Where it was not scored they go back into their lane, to be worked on like any other.
        """
        with self._changed:
            waited = self._in_work.pop(image, [])
            if scored and self._good(record):
                self._memory.remember(record.place.partition, image)
                return waited
            for resend in waited:
                self._put_back(resend)
            self._changed.notify_all()
            return []

    # What the poll loop asks

    def room(self, lane: Lane) -> int:
        """How many more records of a lane may be fetched."""
        with self._changed:
            return 0 if self._closed else self._window.room(lane)

    def committable(self) -> dict[Partition, int]:
        """Offsets that may be committed and are not yet."""
        with self._changed:
            found = {partition: owned.checkpoint.committable for partition, owned in self._owned.items()}
            return {p: o for p, o in found.items() if o is not None and o != self._owned[p].committed}

    def committed(self, offsets: dict[Partition, int]) -> None:
        """The broker has these commits."""
        with self._changed:
            for partition, offset in offsets.items():
                if partition in self._owned:
                    self._owned[partition].committed = offset

    def expected(self, partition: Partition) -> int | None:
        """One beyond the last record fetched from a partition; None before the first."""
        with self._changed:
            owned = self._owned.get(partition)
            return None if owned is None else owned.checkpoint.next

    def position(self, partition: Partition) -> int | None:
        """The first offset that is not settled; None before anything was fetched."""
        with self._changed:
            owned = self._owned.get(partition)
            return None if owned is None else owned.checkpoint.committable

    def oldest_s(self, partition: Partition) -> float | None:
        """Broker time (epoch seconds) of the oldest unsettled record; None where all are settled."""
        with self._changed:
            owned = self._owned.get(partition)
            return next(iter(owned.appended_s.values()), None) if owned else None  # in offset order

    @property
    def in_flight(self) -> tuple[int, int]:
        """Images and bytes fetched and not settled."""
        return self._window.images, self._window.size_bytes

    @property
    def in_work(self) -> int:
        """Records that a worker has now."""
        return len(self._working)

    # The end

    def close(self) -> None:
        """No new work: what only waits is left for the next owner; what is in work may still settle."""
        with self._changed:
            self._closed = True
            for record in self._lanes.drop(lambda _: True):
                self._window.remove(record.lane, record.size_bytes)
            self._changed.notify_all()

    def idle(self, timeout_s: float) -> bool:
        """Waits until nothing is in work, at most that long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._working, timeout_s)

    @property
    def closed(self) -> bool:
        """No new work is given out."""
        return self._closed

    def _good(self, record: Fetched) -> bool:
        owned = self._owned.get(record.partition)
        return owned is not None and owned.ticket == record.ticket

    def _put_back(self, record: Fetched) -> None:
        if self._closed and record in self._working:
            self._release(record)  # no new work: the next owner's
        elif self._working.pop(record, self) is None:
            self._lanes.put(record.lane, record)

    def _release(self, record: Fetched) -> None:
        self._working.pop(record, None)
        self._window.remove(record.lane, record.size_bytes)
        self._changed.notify_all()
