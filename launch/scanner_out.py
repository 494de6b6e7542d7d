"""A software scanner: real associations, C-STORE of each image in its own transfer syntax, pacing, retries.

A scanner that is told 0xA700 (out of resources, PS3.4 B.2.3) keeps the image and tries again, as modalities do; so does
one whose association was lost. Any other failure status is the peer's last word on that image.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from io import BytesIO
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.presentation import build_context

from contracts.deadline import Deadline
from launch.scanner_in import Image, NotSendable

MAX_CONTEXTS = 128  # odd ids 1…255 (PS3.8 9.3.2.2)
_MAX_MESSAGE_ID = 65535
_PRIORITY_MEDIUM, _PRIORITY_HIGH = 0, 1  # PS3.7 9.3.1.1
_BACKOFF_S = (0.25, 5.0)  # first wait, longest wait
_OUT_OF_RESOURCES = 0xA700  # to 0xA7FF (PS3.4 table B.2-1)
_WARNINGS = (0xB000, 0xB006, 0xB007)  # stored, with elements coerced or discarded (PS3.4 table B.2-1)


class Outcome(StrEnum):
    """What became of one image at the peer."""

    STORED = "stored"
    WARNING = "warning"  # stored, and the peer has something to say
    REFUSED = "refused"
    FAILED = "failed"  # never answered: no association, no context


@dataclass(frozen=True, slots=True)
class Sent:
    """One image's answer. ``status`` is the last C-STORE status, None where none came. Times are monotonic seconds."""

    image: Image
    outcome: Outcome
    status: int | None
    attempts: int
    began_s: float
    ended_s: float
    detail: str = ""

    @property
    def stored(self) -> bool:
        """Whether the peer has it."""
        return self.outcome in (Outcome.STORED, Outcome.WARNING)


@dataclass(frozen=True, slots=True)
class Scanner:
    """How to send. ``rate`` is images a second over all associations; None: as fast as the peer takes them."""

    host: str
    port: int
    calling_ae: str = "SCANNER"
    called_ae: str = "TRIAGE"
    rate: float | None = None
    associations: int = 1
    stat: bool = False
    retry_s: float = 60.0
    answer_s: float = 60.0


def send_images(
    images: Iterable[Image],
    scanner: Scanner,
    on_result: Callable[[Sent], None] = lambda _: None,
    stop: threading.Event | None = None,
    pace: "Pace | None" = None,
) -> list[Sent]:
    """Sends every image; returns the answers in the order they came. ``on_result`` is called one at a time.

    ``stop`` ends it after the image in hand; what was not tried by then has no answer. ``pace`` may be shared between
    scanners that together keep one rate.
    """
    ended = stop or threading.Event()
    run = _Run(scanner, ended, on_result, pace or Pace(scanner.rate, ended))
    for batch in batches(images):
        run.send(batch)
    return run.answers


def batches(images: Iterable[Image]) -> Iterator[list[Image]]:
    """Images in order, cut wherever one association could not hold another presentation context."""
    batch: list[Image] = []
    contexts: set[tuple[str, str]] = set()
    for image in images:
        if len(contexts | {image.context}) > MAX_CONTEXTS:
            yield batch
            batch, contexts = [], set()
        batch.append(image)
        contexts.add(image.context)
    if batch:
        yield batch


class _Run:
    """Hands the images of a batch to so many associations, at one common pace."""

    def __init__(
        self, scanner: Scanner, stop: threading.Event, on_result: Callable[[Sent], None], pace: "Pace"
    ) -> None:
        self.answers: list[Sent] = []
        self._scanner = scanner
        self._stop = stop
        self._on_result = on_result
        self._lock = threading.Lock()
        self._pace = pace

    def send(self, batch: Sequence[Image]) -> None:
        waiting = deque(batch)
        contexts = sorted({image.context for image in batch})
        wanted = min(self._scanner.associations, len(batch))
        with ThreadPoolExecutor(wanted, thread_name_prefix="scanner") as pool:
            for done in [pool.submit(self._drain, waiting, contexts) for _ in range(wanted)]:
                done.result()

    def _drain(self, waiting: deque[Image], contexts: Sequence[tuple[str, str]]) -> None:
        association = _Association(self._scanner, contexts)
        try:
            while self._pace.wait():
                self._told(_insist(association, waiting.popleft(), self._scanner.retry_s, self._stop))
        except IndexError:  # the other associations took the rest
            return
        finally:
            association.release()

    def _told(self, answer: Sent) -> None:
        with self._lock:
            self.answers.append(answer)
            self._on_result(answer)


class Pace:
    """Lets one image through at a time, at most ``rate`` a second, first come, first served.

    A late one is not made up for by a burst.
    """

    def __init__(self, rate: float | None, stop: threading.Event) -> None:
        self._gap_s = 1.0 / rate if rate else 0.0
        self._stop = stop
        self._lock = threading.Lock()
        self._next_s = 0.0

    def wait(self) -> bool:
        """False where it was stopped."""
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next_s)
            self._next_s = at + self._gap_s
        return not self._stop.wait(at - now)


class _Lost(Exception):
    """No association, or no answer: worth another try."""


def _insist(association: "_Association", image: Image, retry_s: float, stop: threading.Event) -> Sent:
    """Tries until there is a last word, or no time is left."""
    began, deadline = time.monotonic(), Deadline.after(retry_s, time.monotonic)
    wait_s, attempts = _BACKOFF_S[0], 0
    while True:
        attempts += 1
        outcome, status, detail, again = _try(association, image)
        if not again or deadline.expired() or stop.wait(deadline.within(wait_s)):
            return Sent(image, outcome, status, attempts, began, time.monotonic(), detail)
        wait_s = min(wait_s * 2, _BACKOFF_S[1])


def _try(association: "_Association", image: Image) -> tuple[Outcome, int | None, str, bool]:
    """Outcome, status, detail, and whether another try may help."""
    try:
        status = association.store(image)
    except _Lost as problem:
        return Outcome.FAILED, None, str(problem), True
    except NotSendable as problem:
        return Outcome.FAILED, None, str(problem), False
    except OSError as problem:
        return Outcome.FAILED, None, f"cannot be read: {problem.strerror}", False
    return outcome_of(status), status, "", status & 0xFF00 == _OUT_OF_RESOURCES


def outcome_of(status: int) -> Outcome:
    """What a C-STORE status says (PS3.4 table B.2-1)."""
    if status == 0:
        return Outcome.STORED
    return Outcome.WARNING if status in _WARNINGS else Outcome.REFUSED


class _Association:
    """One association, opened when it is needed and again after it was lost."""

    def __init__(self, scanner: Scanner, contexts: Sequence[tuple[str, str]]) -> None:
        self._scanner = scanner
        self._contexts = [build_context(abstract, [transfer]) for abstract, transfer in contexts]
        self._open: Any = None
        self._message_id = 0

    def store(self, image: Image) -> int:
        """The status of one C-STORE. Raises _Lost, or NotSendable where the peer takes no such image."""
        association = self._established()
        context_id = self._context_id(association, image)
        answer = self._exchange(association, self._request(image), context_id)
        if answer is None or not answer.is_valid_response:
            association.abort()
            raise _Lost("the peer did not answer")
        return int(answer.Status)

    def release(self) -> None:
        """Ends it properly."""
        if self._open is not None and self._open.is_established:
            self._open.release()

    def _established(self) -> Any:
        if self._open is None or not self._open.is_established:
            self._open = self._associate()
        return self._open

    def _associate(self) -> Any:
        ae = AE(ae_title=self._scanner.calling_ae)
        ae.dimse_timeout = ae.network_timeout = self._scanner.answer_s
        association = ae.associate(
            self._scanner.host,
            self._scanner.port,
            contexts=self._contexts,
            ae_title=self._scanner.called_ae,
            evt_handlers=[(evt.EVT_CONN_OPEN, _without_delay)],
        )
        if not association.is_established:
            raise _Lost("the peer rejected the association" if association.is_rejected else "no association")
        _hand_back(association)
        return association

    def _context_id(self, association: Any, image: Image) -> int:
        for context in association.accepted_contexts:
            if (context.abstract_syntax, context.transfer_syntax[0]) == image.context:
                return int(context.context_id)
        raise NotSendable("the peer does not take this SOP class in this transfer syntax")

    def _request(self, image: Image) -> C_STORE:
        self._message_id = self._message_id % _MAX_MESSAGE_ID + 1
        request = C_STORE()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = image.sop_class_uid
        request.AffectedSOPInstanceUID = image.sop_instance_uid
        request.Priority = _PRIORITY_HIGH if self._scanner.stat else _PRIORITY_MEDIUM
        request.DataSet = BytesIO(image.payload())
        return request

    @staticmethod
    def _exchange(association: Any, request: C_STORE, context_id: int) -> Any:
        """As pynetdicom's ``send_c_store`` does, which however decodes the data set and encodes it again."""
        association._reactor_checkpoint.clear()  # noqa: SLF001 — no public way to send bytes as they are
        try:
            while not association._is_paused and association.is_alive():  # noqa: SLF001 — as above
                time.sleep(0.0001)
            if not association.is_established:
                raise _Lost("the peer ended the association")
            association.dimse.send_msg(request, context_id)
            return association.dimse.get_msg(block=True)[1]
        finally:
            association._reactor_checkpoint.set()  # noqa: SLF001 — as above


def _hand_back(association: Any) -> None:
    """The library's own thread may take an answer that it was asked to leave to us: its pause is seen a moment too
    early, and on a busy machine that moment is long. What it takes goes back into the queue that we wait at.
    """

    def hand_back(message: Any, context_id: int) -> None:
        association.dimse.msg_queue.put((context_id, message))

    association._serve_request = hand_back  # noqa: SLF001 — no public way to answer for a peer that only asks


def _without_delay(event: Any) -> None:
    """Nagle's wait for an acknowledgement would cost some 40 ms an image."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
