"""The list and the study as a caller gets them (pure): from the view, or from memory and marked while it is away."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pydantic import ValidationError

from contracts.errors import DecodeError, PeerError
from contracts.hooks import Happening, Hooks
from contracts.worklist import Backlog, QueueStatus, WorklistItem
from worklist.answers import Filtered, Query, StudyAnswer, WorklistAnswer
from worklist.backlog import behind
from worklist.cursor import Cursor
from worklist.remembered import Remembered, remember
from worklist.status import Standing, standing
from worklist.view import Page, PartitionView, Place, Source, StudyView, View

_SCAN_FILTERED = 500  # places of one round trip while filters leave few of them over: a megabyte
_AWAY = "The queue's store does not answer."
_AWAY_STUDY = f"{_AWAY} Nothing can be said of this study now."
_UNREADABLE = "At least one study of the queue could not be read and is not shown."
_MISSING = "At least one study of the queue is missing in its store and is not shown."


class NoAnswer(Exception):
    """Nothing can be told; ``standing`` says why. ``certain``: the view is complete and holds no such study."""

    def __init__(self, standing: Standing, *, certain: bool = False) -> None:
        super().__init__(standing.detail)
        self.standing = standing
        self.certain = certain


@dataclass(slots=True)
class _Scan:
    items: list[WorklistItem] = field(default_factory=list)
    next: Cursor | None = None
    total: int = 0
    faults: list[str] = field(default_factory=list)
    partitions: Sequence[PartitionView] = ()
    expected: int = 0


class Reading:
    """Answers readers. Remembers the last complete list for when the store is away.

    An answer is ok when every partition reports, and none is silent for longer than ``stale_s``.
    """

    def __init__(self, view: View, stale_s: float, now: Callable[[], float], hooks: Hooks) -> None:
        self._view = view
        self._stale_s = stale_s
        self._now = now  # epoch seconds
        self._hooks = hooks
        self._remembered: Remembered | None = None
        self.standing = Standing(QueueStatus.DEGRADED, "The queue's store has not answered yet.")
        self.up: bool | None = None

    async def worklist(self, query: Query) -> WorklistAnswer:
        """A page of the list. Raises NoAnswer when the store is away and nothing is remembered."""
        try:
            scan = await self._scan(self._view, query)
        except PeerError:
            return await self._from_memory(query)
        judged = self._judged(scan)
        if scan.faults:
            judged = Standing(
                QueueStatus.DEGRADED, " ".join(filter(None, [judged.detail, *dict.fromkeys(scan.faults)]))
            )
        answer = _answer(scan, judged, self._now(), 0.0)
        return answer.model_copy(update={"backlog": self._behind(scan)})

    async def study(self, study_instance_uid: str) -> StudyAnswer:
        """One study. Raises NoAnswer: certain only while the view is complete."""
        try:
            found = await self._view.study(study_instance_uid)
        except PeerError:
            raise NoAnswer(Standing(QueueStatus.DEGRADED, _AWAY_STUDY)) from None
        except DecodeError:
            self._hooks.happened(Happening.FAULT, where="worklist.study")
            raise NoAnswer(Standing(QueueStatus.DEGRADED, "What is stored of this study cannot be read.")) from None
        judged = self._judged(found)
        if found.item is None:
            raise NoAnswer(judged, certain=judged.status is QueueStatus.OK)
        return _study_answer(found, found.item, judged).model_copy(update={"backlog": self._behind(found)})

    async def refresh(self, *, moved: bool) -> Standing:
        """Looks at the view: its standing now; remembers the list anew if it ``moved`` and is complete."""
        try:
            page = await self._view.page(None, 1)
            judged = self._judged(page)
            if self._remembered is None or (moved and judged.status is QueueStatus.OK):
                self._remembered = await remember(self._view, self._now())
            self.up = True
        except PeerError:
            judged = Standing(QueueStatus.DEGRADED, _AWAY)
            self.up = False
        self._hooks.happened(Happening.PEER_UP, float(self.up), peer="redis")
        self.standing = judged
        return judged

    def _judged(self, seen: _Scan | Page | StudyView) -> Standing:
        return standing(seen.partitions, seen.expected, self._stale_s)

    def _behind(self, seen: _Scan | StudyView) -> Backlog | None:
        return behind(seen.partitions, seen.expected, self._stale_s)

    async def _from_memory(self, query: Query) -> WorklistAnswer:
        remembered = self._remembered
        if remembered is None:
            raise NoAnswer(Standing(QueueStatus.DEGRADED, _AWAY))
        scan = await self._scan(remembered, query)
        age_s = max(0.0, self._now() - remembered.read_at)
        detail = f"{_AWAY} This is the list as it was {age_s:.0f} s ago."
        if not remembered.whole:
            detail += " Only its front is remembered."
        return _answer(scan, Standing(QueueStatus.DEGRADED, detail), remembered.read_at, age_s)

    async def _scan(self, source: Source, query: Query) -> _Scan:
        """Pages through ``source`` until ``limit`` places pass the filters or the queue ends."""
        scan = _Scan()
        after, seen = query.after, set[str]()
        while True:
            page = await source.page(after, max(query.limit, _SCAN_FILTERED) if query.filters else query.limit)
            scan.total, scan.partitions, scan.expected = page.total, page.partitions, page.expected
            after = self._take(page, query, scan, seen)
            if after is None or len(scan.items) == query.limit:
                scan.next = after
                return scan

    def _take(self, page: Page, query: Query, scan: _Scan, seen: set[str]) -> Cursor | None:
        """Takes what passes until the answer is full; where to go on, None at the end of the queue."""
        for number, place in enumerate(page.places, start=page.first + 1):
            item = self._decoded(place, number, query, scan)
            if item and item.study_instance_uid not in seen:
                seen.add(item.study_instance_uid)
                scan.items.append(item)
            if len(scan.items) == query.limit:
                return place.cursor if number < page.total else None
        ended = not page.places or page.first + len(page.places) >= page.total
        return None if ended else page.places[-1].cursor

    def _decoded(self, place: Place, number: int, query: Query, scan: _Scan) -> WorklistItem | None:
        if place.item is None:  # a study leaves the queue and its store in one step: this one was lost
            scan.faults.append(_MISSING)
            return None
        try:
            if not query.wants(Filtered.model_validate_json(place.item)):
                return None
            return WorklistItem.model_validate_json(place.item).model_copy(update={"position": number})
        except ValidationError:
            scan.faults.append(_UNREADABLE)
            self._hooks.happened(Happening.FAULT, where="worklist.item")
            return None


def _answer(scan: _Scan, judged: Standing, as_of: float, age_s: float) -> WorklistAnswer:
    return WorklistAnswer(
        status=judged.status,
        detail=judged.detail,
        items=tuple(scan.items),
        next=scan.next.encode() if scan.next else None,
        total=scan.total,
        as_of=as_of,
        age_s=age_s,
    )


def _study_answer(found: StudyView, item: WorklistItem, judged: Standing) -> StudyAnswer:
    fields = {name: getattr(item, name) for name in WorklistItem.model_fields}
    fields["position"] = 0 if found.place is None else found.place + 1
    return StudyAnswer(**fields, images=found.images, history=found.history, status=judged.status, detail=judged.detail)
