"""One record, once a worker has it.

1. read its headers; what cannot be read is a dead letter
2. a resend of a scored image is settled without a new event
3. fetch the payload
4. analyse: one event for each frame, appended as soon as it is known
5. wait until every append is acknowledged
6. an image that is itself at fault goes to the dead letters
7. settle, and only then may its offset be committed

A peer that is away stops none of this for good: the step is tried again until it works, the record is another
worker's, or the service stops (design decision 5). What the log refuses: ``telling``.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count

from contracts.deadline import Deadline
from contracts.errors import DecodeError, NotAnalysable, PeerError
from contracts.events import NotAnalysed, Scored
from contracts.hooks import Happening, Hooks, Stage
from contracts.reasons import Reason
from contracts.scans import Place, Scan, ScanHeaders
from worker.scoring.analysis import Analysis, Ask, Event, Work, at_fault, not_analysed
from worker.scoring.custody import Custody, Dropped, Fetched
from worker.scoring.holding import Holding
from worker.scoring.inference import Inference, Request
from worker.scoring.insistence import Insistence
from worker.scoring.measure import Answer
from worker.scoring.telling import Publishing, Telling
from worker.scoring.unreadable import unreadable_event

_STRIKES = 3  # failures of one image, each while another image was answered, before it is blamed
_ATTEMPTS = 3  # at a record that makes our own code fail, before it is put aside
_ROOM_S = 0.1  # between looks for the memory of a large payload


@dataclass(frozen=True, slots=True)
class Tools:
    """What settling works with, and the deadline of one inference."""

    custody: Custody
    publishing: Publishing
    inference: Inference
    analysis: Analysis
    payload_of: Callable[[Scan], bytes]
    request_timeout_s: float
    holding: Holding


class Settling:
    """Safe to use from many threads, a record in each."""

    def __init__(self, tools: Tools, hooks: Hooks, monotonic: Callable[[], float], now: Callable[[], float]) -> None:
        self._tools = tools
        self._custody = tools.custody
        self._hooks = hooks
        self._monotonic = monotonic
        self._now = now
        self._insist = Insistence(tools.custody)
        self._telling = Telling(tools.publishing, self._insist, hooks)

    def handle(self, record: Fetched) -> None:
        """Settles the record, or hands it back where it is no longer ours or time is up. Raises nothing."""
        try:
            self._settled(record)
        except Dropped:
            self._custody.hand_back(record)

    def _settled(self, record: Fetched) -> None:
        """Raises Dropped."""
        for _ in range(_ATTEMPTS):
            try:
                self._insist.until_done(record, lambda: self._settle_one(record))
            except Dropped:
                raise
            except Exception:  # noqa: BLE001 (a fault of ours must neither lose the image nor stop the worker)
                self._hooks.happened(Happening.FAULT, where="scoring")
            else:
                return
        self._put_aside(record)

    def _settle_one(self, record: Fetched) -> None:
        try:
            headers = ScanHeaders.decode(record.headers)
        except DecodeError:
            self._unreadable(record, "the record's headers")
            return
        image = (headers.study_instance_uid, headers.sop_instance_uid, headers.pixel_digest)
        mine = self._custody.claim(image, record)
        if mine:
            scored = False
            try:
                scored = self._analyse(record, headers)
            finally:
                for resend in self._custody.unclaim(image, record, scored=scored):
                    self._settle_duplicate(resend, headers.traceparent)
        elif mine is not None:  # None: the same image is in work, and its end settles this record too
            self._settle_duplicate(record, headers.traceparent)

    def _settle_duplicate(self, record: Fetched, traceparent: str) -> None:
        if self._custody.settle(record):
            self._hooks.happened(Happening.DUPLICATE, traceparent=traceparent, room="scoring")

    def _analyse(self, record: Fetched, headers: ScanHeaders) -> bool:
        """Steps 3 to 7; whether every frame was scored."""
        work = Work(headers, record.value, record.place, self._now())
        with self._room(record, headers):
            appended = [(event, self._telling.append(event)) for event in self._events(record, work)]
        with self._hooks.stage(Stage.SETTLE, headers.traceparent):
            events = self._made_durable(record, appended, next(iter(work.details), ""))
            settled = self._custody.settle(record)
        if settled:
            for event in events:
                self._tell(event)
        return all(isinstance(event, Scored) for event in events)

    @contextmanager
    def _room(self, record: Fetched, headers: ScanHeaders) -> Iterator[None]:
        """Memory for a payload that is fetched from elsewhere, waited for. Raises Dropped as ``Insistence`` does."""
        size_bytes = headers.size_bytes if headers.claim else 0
        while not self._tools.holding.take(size_bytes):
            if self._custody.gone(record, _ROOM_S):
                raise Dropped
        try:
            yield
        finally:
            self._tools.holding.give(size_bytes)

    def _events(self, record: Fetched, work: Work) -> Iterable[Event]:
        if work.headers.claim:
            try:
                with self._hooks.stage(Stage.FETCH_PAYLOAD, work.headers.traceparent):
                    scan = Scan(work.headers, record.value)
                    payload = self._insist.until_done(record, lambda: self._tools.payload_of(scan))
            except NotAnalysable as problem:
                work.details.append(problem.detail)
                return [not_analysed(work, problem.reason, None)]
            work = replace(work, payload=payload)
        return self._tools.analysis.events(work, self._asking(record))

    def _asking(self, record: Fetched) -> Ask:
        """The first attempt is sent at once; whatever becomes of it, there is an answer in the end."""

        def ask(request: Request) -> Callable[[], Answer]:
            first = self._first_attempt(request)

            def answer() -> Answer:
                with self._hooks.stage(Stage.INFER, request.traceparent):
                    try:
                        return first()
                    except PeerError:
                        return self._answer(record, request)

            return answer

        return ask

    def _first_attempt(self, request: Request) -> Callable[[], Answer]:
        try:
            return self._tools.inference.start(request, self._deadline())
        except PeerError as problem:
            return _failing(problem)

    def _answer(self, record: Fetched, request: Request) -> Answer:
        """Goes on asking. Raises NotAnalysable (MODEL_REFUSED) where only this image goes without an answer."""
        strikes = attempt = 0
        while True:
            try:
                return self._tools.inference.infer(request, self._deadline())
            except PeerError as problem:
                strikes += self._tools.inference.blames(request, problem)
                if strikes >= _STRIKES:
                    raise NotAnalysable(Reason.MODEL_REFUSED, problem.detail) from problem
            self._insist.pause(record, attempt)
            attempt += 1

    def _deadline(self) -> Deadline:
        return Deadline.after(self._tools.request_timeout_s, self._monotonic)

    def _made_durable(self, record: Fetched, appended: "list[tuple[Event, Future[Place]]]", detail: str) -> list[Event]:
        """Every event is acknowledged, and the dead letter of an image at fault, when this returns: what was told."""
        events = [self._telling.acknowledge(record, event, first) for event, first in appended]
        fault = next((event for event in events if at_fault(event)), None)
        if isinstance(fault, NotAnalysed):
            self._telling.bury(record, fault.reason, detail)
        return events

    # What cannot be read

    def _unreadable(self, record: Fetched, detail: str) -> None:
        """A dead letter, and an event wherever the study can still be told from the record's key."""
        event = unreadable_event(record, self._now())
        if event is not None:
            self._telling.acknowledge(record, event, self._telling.append(event))
        self._telling.bury(record, Reason.RECORD_UNREADABLE, detail)
        if self._custody.settle(record):
            self._hooks.happened(Happening.NOT_ANALYSED, reason=Reason.RECORD_UNREADABLE.value)

    def _put_aside(self, record: Fetched) -> None:
        """Our own code failed at this record, more than once: it must not hold up the others for ever."""
        for attempt in count():
            try:
                self._unreadable(record, "an unexpected error")
            except Dropped:
                raise
            except Exception:  # noqa: BLE001 (nor may this end the worker: nobody would settle the record)
                self._hooks.happened(Happening.FAULT, where="scoring")
                self._insist.pause(record, attempt)
            else:
                return

    def _tell(self, event: Event) -> None:
        if isinstance(event, Scored):
            model, version = event.model, event.model_version
            self._hooks.happened(Happening.SCORED, traceparent=event.traceparent, model=model, version=version)
        else:
            reason = event.reason.value
            self._hooks.happened(Happening.NOT_ANALYSED, traceparent=event.traceparent, reason=reason)


def _failing(problem: PeerError) -> Callable[[], Answer]:
    def answer() -> Answer:
        raise problem

    return answer
