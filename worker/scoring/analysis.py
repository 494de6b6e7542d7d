"""One scan → its events: open, route, decode, ask the model. Orders the steps; each of them lives elsewhere.

1. open the instance, and find its way by its tags
2. for each frame: geometry and units are checked
3. its pixels are decoded, and looked at where no tag names a body part
4. the model is asked, a few frames ahead; beside it, where the slice may be no head, whether there is brain in it
5. each frame gives one event as soon as its answer is there; what was found is measured inside the head
"""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from threading import Semaphore
from typing import Any

from contracts.errors import NotAnalysable
from contracts.events import NotAnalysed, ScanPlace, Scored
from contracts.hooks import Hooks, Stage
from contracts.reasons import Category, Reason
from contracts.scans import Place, ScanHeaders
from worker.scoring.decode import Budget, Instance, frames_of, read
from worker.scoring.facts import FrameFacts
from worker.scoring.frame import Decoding, decoded
from worker.scoring.hounsfield import Hounsfield, hounsfield
from worker.scoring.inference import Request
from worker.scoring.inside import Inside
from worker.scoring.measure import Answer, found_something, measures_of
from worker.scoring.routing import Way, check_content, check_frame, way_of

FRAMES_AHEAD = 4  # of one instance with the model at once: keeps a GPU busy, bounds the memory

Event = Scored | NotAnalysed
Ask = Callable[[Request], Callable[[], Answer]]
"""Sends a request; the function it returns waits for the answer and goes on trying until there is one."""


@dataclass(frozen=True, slots=True)
class Work:
    """One scan to analyse. ``at``: epoch seconds, for people. ``details``: what was wrong, as it was found."""

    headers: ScanHeaders
    payload: bytes
    place: Place
    at: float
    details: list[str] = field(default_factory=list)


class Analysis:
    """Pure but for ``ask`` and ``decoders``. ``decoding`` bounds how many threads decode at once.

    ``masks``: whether the server has the organ models of the routes (setting ``scoring.brain_mask``).
    """

    def __init__(
        self,
        budget: Budget,
        decoding: Semaphore,
        hooks: Hooks,
        decoders: Decoding = lambda _: decoded,
        *,
        masks: bool = False,
    ) -> None:
        self._masks = masks
        self._budget = budget
        self._decoding = decoding
        self._hooks = hooks
        self._decoders = decoders

    def events(self, work: Work, ask: Ask) -> Iterator[Event]:
        """One event for each frame in order, or one for the whole instance; after a failure in the middle, both.

        Frames that are all refused for one reason, before any is decoded, are the instance's refusal: one event.

        Whatever an image is, this ends: every NotAnalysable becomes an event. PeerError and Dropped pass through.
        """
        try:
            instance, way = self._open(work)
            refusals = [self._refusal(instance, way, number) for number in range(instance.facts.frames)]
            _check_any(refusals)
            yield from self._frames(work, instance, way, refusals, ask)
        except NotAnalysable as problem:
            yield _refused(work, problem, None)

    def _open(self, work: Work) -> tuple[Instance, Way]:
        with self._decoding, self._hooks.stage(Stage.ROUTE, work.headers.traceparent):
            instance = read(work.payload, work.headers.transfer_syntax_uid, self._budget)
            way = way_of(instance.facts)
            if instance.facts.frames != work.headers.frames:
                raise NotAnalysable(Reason.RECORD_UNREADABLE, "header and data set differ in the number of frames")
            return instance, way

    def _refusal(self, instance: Instance, way: Way, number: int) -> NotAnalysable | None:
        try:
            check_frame(instance.frame_facts(number), instance.facts, way.route)
        except NotAnalysable as problem:
            return problem
        return None

    def _frames(
        self, work: Work, instance: Instance, way: Way, refusals: list[NotAnalysable | None], ask: Ask
    ) -> Iterator[Event]:
        asked: deque[Callable[[], Event]] = deque()
        if all(refusals):
            yield from (_refused(work, refusal, n) for n, refusal in enumerate(refusals) if refusal)
            return
        for number, slices in enumerate(self._pixels(work, instance, way, refusals)):
            asked.append(self._asked(work, way, number, slices, ask))
            if len(asked) >= FRAMES_AHEAD:
                yield asked.popleft()()
        while asked:
            yield asked.popleft()()

    def _pixels(
        self, work: Work, instance: Instance, way: Way, refusals: list[NotAnalysable | None]
    ) -> "Iterator[_Slice | NotAnalysable]":
        frames = frames_of(instance, self._budget, self._decoders(work.headers.series_instance_uid))
        for number, refusal in enumerate(refusals):
            with self._decoding, self._hooks.stage(Stage.DECODE, work.headers.traceparent):
                stored = next(frames)  # a refused frame is decoded too: compressed frames have no other end
                facts = instance.frame_facts(number)
                outcome = refusal or _slice(hounsfield(stored, facts, instance.data), facts, way)
            yield outcome
        with self._decoding:
            next(frames, None)  # more frames than announced, or damage behind the last one

    def _asked(
        self, work: Work, way: Way, number: int, outcome: "_Slice | NotAnalysable", ask: Ask
    ) -> Callable[[], Event]:
        if isinstance(outcome, NotAnalysable):
            refused = _refused(work, outcome, number)
            return lambda: refused
        request = Request(way.route.model, outcome.hu, outcome.spacing_mm, work.headers.lane, work.headers.traceparent)
        asked = _Asked(ask(request))
        if self._masks:
            about_organ = replace(request, spec=way.route.organ)
            sure = not way.by_content and way.route.surely_right(outcome.hu, outcome.spacing_mm)
            asked = _Asked(asked.answer, lambda: ask(about_organ), None if sure else ask(about_organ))
        return lambda: _answered(work, way, number, outcome.facts, asked)


@dataclass(frozen=True, slots=True, eq=False)
class _Slice:
    hu: Hounsfield
    spacing_mm: tuple[float, float]
    facts: FrameFacts


def _slice(hu: Hounsfield, facts: FrameFacts, way: Way) -> "_Slice | NotAnalysable":
    try:
        check_content(hu, facts, way)
    except NotAnalysable as problem:
        return problem
    if facts.spacing_mm is None:
        return NotAnalysable(Reason.GEOMETRY_MISSING)
    return _Slice(hu, facts.spacing_mm, facts)


@dataclass(frozen=True, slots=True)
class _Asked:
    """``answer`` waits for the model. ``about_organ`` asks where the organ lies; ``doubt`` was asked so beforehand."""

    answer: Callable[[], Answer]
    about_organ: Callable[[], Callable[[], Answer]] | None = None
    doubt: Callable[[], Answer] | None = None

    def inside(self, answer: Answer) -> Inside | None:
        """Raises NotAnalysable (CONTENT_OUT_OF_SCOPE) where there was doubt and no organ is seen.

        None where it was not asked, or where the organ's model has no valid word for this image: that is no reason to
        lose what the main model said.
        """
        asked = self.doubt or (self.about_organ() if self.about_organ and found_something(answer) else None)
        if asked is None:
            return None
        try:
            inside = Inside.told_by(asked())
        except NotAnalysable:
            return None
        if self.doubt and not inside.holds_brain:
            raise NotAnalysable(Reason.CONTENT_OUT_OF_SCOPE)
        return inside


def _answered(work: Work, way: Way, number: int, facts: FrameFacts, asked: _Asked) -> Event:
    try:
        answer = asked.answer()
        return _scored(work, way, number, facts, answer, asked.inside(answer))
    except NotAnalysable as problem:
        return _refused(work, problem, number)


def _scored(work: Work, way: Way, number: int, facts: FrameFacts, answer: Answer, inside: Inside | None) -> Scored:
    shape = (answer.segmentation.shape[1], answer.segmentation.shape[2])
    return Scored(
        **_image(work),
        frame=number,
        model=answer.model.name,
        model_version=answer.model.version,
        measures=measures_of(answer, inside.on(shape, answer.model.grid_pitch_mm) if inside else None),
        position_mm=facts.position_mm or 0.0,
        thickness_mm=facts.thickness_mm or 0.0,
        orientation=way.route.orientation,
    )


def _check_any(refusals: list[NotAnalysable | None]) -> None:
    """Raises the refusal of the whole instance where no frame is let through and all say the same of why."""
    first = refusals[0]
    if first is not None and all(other is not None and other.reason is first.reason for other in refusals):
        raise first


def _refused(work: Work, problem: NotAnalysable, frame: int | None) -> NotAnalysed:
    if problem.reason.category is Category.FAILED:
        work.details.append(problem.detail)
    return not_analysed(work, problem.reason, frame)


def not_analysed(work: Work, reason: Reason, frame: int | None) -> NotAnalysed:
    """The event of an image, or of one of its frames, without a score. A single-frame image has no frame number."""
    return NotAnalysed(**_image(work), frame=None if work.headers.frames == 1 else frame, reason=reason)


def _image(work: Work) -> dict[str, Any]:
    """What every event of an image says of it."""
    headers = work.headers
    return {
        "study_instance_uid": headers.study_instance_uid,
        "series_instance_uid": headers.series_instance_uid,
        "sop_instance_uid": headers.sop_instance_uid,
        "pixel_digest": headers.pixel_digest,
        "traceparent": headers.traceparent,
        "at": work.at,
        "frames": headers.frames,
        "scan": scan_place(work.place),
    }


def scan_place(place: Place) -> ScanPlace:
    """Where the scan record lies, as events tell it."""
    return ScanPlace(topic=place.topic, partition=place.partition, offset=place.offset)


def at_fault(event: Event) -> bool:
    """Whether the image itself failed us: it goes to the dead letters too."""
    return isinstance(event, NotAnalysed) and event.reason.category is Category.FAILED
