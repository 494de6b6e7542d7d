"""A well-behaved scanner that keeps sending while others misbehave: every image must be answered with Success."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from time import monotonic, sleep
from typing import Any

import httpx
from pydicom.uid import generate_uid

from chaos.fuzz.result import Scanned
from chaos.fuzz.samples_in import head_ct
from launch.scanner_in import Image, image_of
from launch.scanner_out import Scanner, Sent, send_images

RATE = 4.0  # images a second: enough to meet every hostile input, little enough for the model on a busy machine
STUDY_IMAGES = 6
SETTLED_S = 180.0  # for the last of them, behind whatever the others left in the topics
AE_TITLE = "WELL-BEHAVED"


@dataclass(slots=True)
class KeepsSending:
    """Runs in a thread from ``start`` to ``stop``. One attempt an image: no retry may hide a refusal."""

    address: tuple[str, int]
    studies: dict[str, set[str]] = field(default_factory=dict)
    answers: list[Sent] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to send."""
        self._thread = threading.Thread(target=self._run, name="well-behaved", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sends no more; what is in hand is finished."""
        self._ended.set()
        if self._thread:
            self._thread.join()

    def _run(self) -> None:
        host, port = self.address
        scanner = Scanner(host, port, AE_TITLE, "ANY-SCP", rate=RATE, retry_s=0.0)
        while not self._ended.is_set():
            self.answers += send_images(self._study(), scanner, stop=self._ended)

    def _study(self) -> Iterator[Image]:
        study, series = str(generate_uid()), str(generate_uid())
        for number in range(STUDY_IMAGES):
            yield image_of(head_ct(uids=(study, series, str(generate_uid()))), f"{study}/{number}")

    def scanned(self, url: str) -> Scanned:
        """Sent, stored, and settled exactly once as the worklist tells it; waits for the last of them."""
        stored = [sent.image for sent in self.answers if sent.status == 0]
        wanted: dict[str, set[str]] = {}
        for image in stored:
            wanted.setdefault(image.name.split("/")[0], set()).add(image.sop_instance_uid)
        until_s = monotonic() + SETTLED_S
        settled = sum(_waited(partial(_settled, url, *one), len(one[1]), until_s) for one in wanted.items())
        return Scanned(len(self.answers), len(stored), settled)

    def refusals(self) -> list[str]:
        """What else it was told than Success."""
        return [f"{sent.outcome}: {sent.status} {sent.detail}" for sent in self.answers if sent.status != 0]


def _waited(ask: Callable[[], int], wanted: int, until_s: float) -> int:
    for _ in count():
        if (found := ask()) == wanted or monotonic() > until_s:
            return found
        sleep(0.3)
    raise AssertionError("count() has no end")


def _settled(url: str, study: str, instances: set[str]) -> int:
    """How many of the instances are settled once, each as one image."""
    try:
        answer = httpx.get(f"{url.rstrip('/')}/v1/studies/{study}", timeout=10.0)
    except httpx.HTTPError:
        return 0
    images: list[dict[str, Any]] = answer.json().get("images", []) if answer.status_code == httpx.codes.OK else []
    once = [one["sop_instance_uid"] for one in images if one["settlements"] == 1 and one["outcome"]]
    return sum(once.count(instance) == 1 for instance in instances)
