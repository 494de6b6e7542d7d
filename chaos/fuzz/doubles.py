"""Stand-ins for what a pure target would ask of the world: a model that answers, a log that takes all, a view."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NoReturn

import numpy as np

from contracts.deadline import Deadline
from contracts.errors import DecodeError, PeerError
from contracts.findings import ReadingState, StudyState, Urgency
from contracts.hooks import Happening, Silent
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import FlaggingSettings
from contracts.worklist import Change, PartitionStatus, WorklistItem
from worker.flagging.redis_out import RedisView
from worker.flagging.study import Study
from worker.flagging.view import Taken, Write
from worker.scoring.inference import Request
from worker.scoring.measure import Answer, ServedModel, checked
from worklist.cursor import Cursor
from worklist.view import Bounds, Page, PartitionView, StreamChange, StudyView
from worklist.view import Place as QueuePlace

GRID = 32  # samples a side of the answered segmentation
PARTITIONS = 4
THRESHOLD = 0.5  # of every label


class SoundModel:
    """Answers every image at once, as the served model would; refuses what it could not have been sent.

    ``probability``: of every label; what it calls positive it sees everywhere.
    """

    def __init__(self, probability: float = 0.25) -> None:
        self._probability = probability

    def infer(self, request: Request, deadline: Deadline) -> Answer:
        """See ``worker.scoring.inference.Inference``."""
        del deadline
        return self.answer(request)

    def start(self, request: Request, deadline: Deadline) -> Callable[[], Answer]:
        """See ``worker.scoring.inference.Inference``."""
        del deadline
        return self.ask(request)

    def blames(self, request: Request, problem: PeerError) -> bool:
        """It never fails."""
        del request, problem
        return False

    def ask(self, request: Request) -> Callable[[], Answer]:
        """For ``Analysis.events``."""
        answer = self.answer(request)
        return lambda: answer

    def answer(self, request: Request) -> Answer:
        """Raises AssertionError where the request is none that a model may be sent."""
        hu = request.hu
        plane = hu.dtype == np.float16 and hu.ndim == 2  # noqa: PLR2004 - rows and columns
        if not plane or not np.isfinite(hu).all() or min(request.spacing_mm) <= 0:
            raise AssertionError(f"a model was sent {hu.dtype} {hu.shape} at {request.spacing_mm}")
        labels = request.spec.labels
        model = ServedModel(request.spec.name, "1", labels, dict.fromkeys(labels, THRESHOLD), 1.0)
        seen = float(self._probability >= THRESHOLD)
        segmentation = np.full((len(labels) - 1, GRID, GRID), seen, dtype=np.float32)
        return checked(Answer(np.full(len(labels), self._probability, dtype=np.float32), segmentation, model))


class FaultsTold(Silent):
    """Hooks that remember faults: what a guard of ours caught and nobody expected is a crash all the same."""

    def __init__(self) -> None:
        self.faults: list[str] = []

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Remembers faults."""
        del value, traceparent
        if happening is Happening.FAULT:
            self.faults.append(labels.get("where", ""))

    def take(self) -> list[str]:
        """Those since the last call."""
        faults, self.faults = self.faults, []
        return faults


class OpenEntrance:
    """``contracts.ports.Entrance`` where there is no connection to guard: everybody is let in."""

    def config(self, app: Any, **more: Any) -> NoReturn:
        """There is no listener."""
        raise NotImplementedError

    def refusal(self, scope: Any) -> None:
        """See ``contracts.ports.Entrance``."""
        del scope


class TakingLog:
    """``contracts.ports.Log`` in memory: everything is acknowledged at once; only the last entries are kept."""

    partitions = PARTITIONS

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def append(self, entry: Entry) -> "Future[Place]":
        """Acknowledged at once."""
        self.entries.append(entry)
        done: Future[Place] = Future()
        done.set_result(Place(entry.topic, entry.partition, len(self.entries)))
        return done

    def up(self) -> bool:
        """Always."""
        return True

    def close(self, timeout_s: float) -> None:
        """Nothing is in flight."""
        del timeout_s


class StoredStudies(RedisView):
    """What flagging keeps of studies, in dictionaries, and reads as it reads its store."""

    def __init__(self, rules: FlaggingSettings) -> None:
        self._rules = rules
        self._kept: dict[str, tuple[bytes, dict[bytes, bytes], dict[bytes, bytes]]] = {}

    def write(self, write: Write) -> None:
        """One study of a batch."""
        _, images, frames = self._kept.get(write.uid, (b"", {}, {})) if not write.fresh else (b"", {}, {})
        images |= {name.encode(): value.encode() for name, value in write.images.items()}
        frames |= {name.encode(): value.encode() for name, value in write.frames.items()}
        self._kept[write.uid] = (write.fold.encode(), images, frames)

    def study(self, taken: Taken, uid: str) -> Study | None:
        """As it was written. Raises DecodeError where it cannot be read again."""
        if uid not in self._kept:
            return None
        fold, images, frames = self._kept[uid]
        return self._read(taken, uid, [fold, str(taken.epoch).encode()], dict(images), dict(frames))


class SmallView:
    """``worklist.view.View`` over a few studies, one of which is stored broken."""

    def __init__(self) -> None:
        self._items = [_item(number) for number in range(6)]
        self._stored = [item.model_dump_json().encode() for item in self._items]
        self._stored[3] = b'{"broken'
        self._partitions = [PartitionView(number, PartitionStatus.READY, 0.0) for number in range(PARTITIONS)]

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """See ``worklist.view.Source``: the order of Redis."""
        places = [
            QueuePlace(str(i.rank), i.study_instance_uid, s) for i, s in zip(self._items, self._stored, strict=True)
        ]
        first = 0 if after is None else sum(place.cursor.order <= after.order for place in places)
        return Page(len(places), first, places[first : first + limit], self._partitions, PARTITIONS)

    async def study(self, study_instance_uid: str) -> StudyView:
        """See ``worklist.view.View``."""
        found = [number for number, item in enumerate(self._items) if item.study_instance_uid == study_instance_uid]
        if found == [3]:
            raise DecodeError("study item", self._stored[3])
        item = self._items[found[0]] if found else None
        return StudyView(item, (), (), found[0] if found else None, self._partitions, PARTITIONS)

    async def bounds(self) -> Bounds:
        """See ``worklist.view.View``."""
        return Bounds("5-0", "9-0")

    async def changes(self, after: str, limit: int, wait_s: float = 0.0) -> tuple[str, Sequence[StreamChange]]:
        """See ``worklist.view.View``."""
        del limit, wait_s
        if after == "9-0":
            return after, ()
        return "9-0", [StreamChange("9-0", Change.RECEIVED, self._items[0])]

    async def close(self) -> None:
        """Nothing to give back."""


def _item(number: int) -> WorklistItem:
    times: dict[str, Any] = {"arrived_at": 1.0, "due_at": 2.0, "rank": float(number // 2)}
    counts = {"images_received": 3, "images_settled": 2}
    word = {"state": StudyState.RECEIVING, "provisional": True, "urgency": Urgency.ROUTINE}
    study = {"study_instance_uid": f"1.2.{number}", "reading_state": ReadingState.UNCLAIMED}
    return WorklistItem(**study, **word, **counts, **times)
