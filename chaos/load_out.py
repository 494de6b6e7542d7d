"""The software scanners of one run: real associations and STOW requests to both producers, as a hospital's would be.

A sender that is told 0xA700 or 503, or loses its association, sends again, at the other producer, as modalities with
two destinations do, until its limit is over. Each Success is entered into the ledger at once.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from chaos.ledger import Ledger
from chaos.phantoms import Picture
from chaos.scenario import Load
from chaos.sendings import Sending, sendings
from launch.scanner_in import image_of
from launch.scanner_out import Pace, Scanner, Sent, send_images

INSIST_S = 90.0  # a scanner's patience with one sending
ANSWER_S = 12.0  # above the producers' own wait for the broker; a one-way link must not eat the patience
AGAIN_S = (0.3, 3.0)  # before the other producer is tried: first wait, longest
LATE_S = 30.0  # a study that has not closed by then gets its late images all the same
LOOK_S = 0.2
STOW_IMAGES = 5  # in one request
CALLING_AE = "CHAOS"
BOUNDARY = "chaos-store-boundary"
OK, ACCEPTED = 200, 202  # PS3.18 table 10.5.3-1
STORED = (OK, ACCEPTED)
REFERENCED_SEQUENCE, FAILED_SEQUENCE, REFERENCED_INSTANCE = "00081199", "00081198", "00081155"


@dataclass(frozen=True, slots=True)
class Doors:
    """Where the producers listen, one entry each in both."""

    dicom: Sequence[tuple[str, int]]
    stow: Sequence[str]


class Scanners:
    """Sends one load. ``closed`` says whether a study has closed, for images that are to come late."""

    def __init__(
        self,
        load: Load,
        doors: Doors,
        ledger: Ledger,
        seed: int,
        closed: Callable[[str], bool],
        insist_s: float = INSIST_S,
    ) -> None:
        self._load = load
        self._doors = doors
        self._ledger = ledger
        self._closed = closed
        self._insist_s = insist_s
        self._stop = threading.Event()
        self._pace = Pace(load.rate, self._stop)
        self._sendings = sendings(tuple(ledger.studies.values()), load, len(doors.dicom), seed)
        self._thread = threading.Thread(target=self._send_all, daemon=True)
        self._trouble: BaseException | None = None

    @property
    def pauses_s(self) -> float:
        """How long the latest of the images is held back."""
        return max((sending.pause_s for sending in self._sendings), default=0.0)

    def start(self) -> None:
        """Begins to send and returns."""
        self._thread.start()

    def stop(self) -> None:
        """Each sender ends after the image in hand."""
        self._stop.set()

    def finished(self, timeout_s: float = 0.0) -> bool:
        """Whether everything was sent or given up. Raises what a sender of ours broke with."""
        self._thread.join(timeout_s)
        if self._trouble is not None:
            raise self._trouble
        return not self._thread.is_alive()

    def _send_all(self) -> None:
        try:
            with ThreadPoolExecutor(self._load.associations, thread_name_prefix="scanner") as pool:
                for done in [pool.submit(self._send, sending) for sending in self._sendings]:
                    done.result()
        except BaseException as problem:  # noqa: BLE001 (told to whoever asks whether we have finished)
            self._trouble = problem

    def _send(self, sending: Sending) -> None:
        """The whole sending, however often that takes; what is left at the end is given up."""
        if sending.late:
            self._await_closing(sending.study_instance_uid)
            self._stop.wait(sending.pause_s)
        ends_s = time.monotonic() + self._insist_s
        left, producer, again_s = list(sending.pictures), sending.producer, AGAIN_S[0]
        while left and not self._stop.is_set():
            before = len(left)
            left = self._tried(sending, left, producer)
            again_s = AGAIN_S[0] if len(left) < before else min(again_s * 2, AGAIN_S[1])
            if time.monotonic() > ends_s:
                break
            producer = (producer + 1) % len(self._doors.dicom)
            if left:
                self._stop.wait(again_s)
        for picture in left:
            self._ledger.give_up(picture)

    def _await_closing(self, uid: str) -> None:
        ends_s = time.monotonic() + LATE_S
        while not (self._closed(uid) or self._stop.wait(LOOK_S) or time.monotonic() > ends_s):
            pass

    def _tried(self, sending: Sending, pictures: Sequence[Picture], producer: int) -> list[Picture]:
        """What is left after one try at one producer."""
        if sending.stow:
            return self._by_stow(self._doors.stow[producer], pictures)
        host, port = self._doors.dicom[producer]
        scanner = Scanner(host, port, CALLING_AE, stat=sending.stat, retry_s=0.0, answer_s=ANSWER_S)
        return self._by_association(scanner, pictures)

    def _by_association(self, scanner: Scanner, pictures: Sequence[Picture]) -> list[Picture]:
        """Until the first trouble."""
        left = {str(nth): picture for nth, picture in enumerate(pictures)}
        trouble = threading.Event()

        def heard(answer: Sent) -> None:
            if answer.stored:
                self._acknowledged([left.pop(answer.image.name)])
            else:
                trouble.set()

        images = [image_of(picture.part10, name) for name, picture in left.items()]
        send_images(images, scanner, heard, trouble, _UntilTrouble(self._pace, trouble))
        return list(left.values())

    def _by_stow(self, url: str, pictures: Sequence[Picture]) -> list[Picture]:
        """Some in each request, until the first trouble."""
        left = list(pictures)
        while left and all(self._pace.wait() for _ in left[:STOW_IMAGES]):
            stored = posted(url, left[:STOW_IMAGES])
            self._acknowledged(stored)
            left = [picture for picture in left if picture not in stored]
            if len(stored) < STOW_IMAGES:
                break
        return left

    def _acknowledged(self, pictures: Iterable[Picture]) -> None:
        heard_s = time.monotonic()
        for picture in pictures:
            self._ledger.acknowledge(picture, heard_s)


class _UntilTrouble(Pace):
    """The common pace, for one association until it has trouble."""

    def __init__(self, shared: Pace, trouble: threading.Event) -> None:
        super().__init__(None, trouble)
        self._shared = shared
        self._trouble = trouble

    def wait(self) -> bool:
        """See Pace."""
        return not self._trouble.is_set() and self._shared.wait()


def posted(url: str, pictures: Sequence[Picture]) -> list[Picture]:
    """One store transaction (PS3.18 10.5); the pictures that its answer says are stored. Raises nothing."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + picture.part10 + b"\r\n" for picture in pictures) + f"--{BOUNDARY}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    try:
        answer = httpx.post(
            f"{url.rstrip('/')}/studies",
            content=body,
            headers={"Content-Type": kind},
            timeout=ANSWER_S,
            trust_env=False,
        )
        return _stored(answer.status_code, answer.json() if answer.status_code in STORED else {}, pictures)
    except (httpx.HTTPError, ValueError):  # no answer, or half of one: nothing is known, so it is sent again
        return []


def _stored(status: int, told: dict[str, Any], pictures: Sequence[Picture]) -> list[Picture]:
    """200: all. 202: those that are referenced, and not also among the failed under the same UID."""
    if status == OK:
        return list(pictures)
    uids = _uids(told, REFERENCED_SEQUENCE) - _uids(told, FAILED_SEQUENCE)
    return [picture for picture in pictures if picture.sop_instance_uid in uids]


def _uids(told: dict[str, Any], sequence: str) -> set[str]:
    return {item[REFERENCED_INSTANCE]["Value"][0] for item in told.get(sequence, {}).get("Value", ())}
