"""Several software scanners at once: one study, one association each, all at one common pace."""

import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Self

from launch.demo_board import Board
from launch.demo_studies import DemoStudy
from launch.scanner_out import Pace, Scanner, Sent, send_images

AT_ONCE = 6  # scanners of a busy department; it also bounds the studies held in memory


class Scanners:
    """Starts one scanner after the other, in the order of the studies, and at most so many at once."""

    def __init__(self, studies: Iterable[DemoStudy], scanner: Scanner, board: Board, lock: threading.Lock) -> None:
        self._studies = studies
        self._scanner = scanner
        self._board = board
        self._lock = lock
        self._stop = threading.Event()
        self._room = threading.Semaphore(AT_ONCE)
        self._pace = Pace(scanner.rate, self._stop)
        self._thread = threading.Thread(target=self._all, name="scanners", daemon=True)
        self._problem: BaseException | None = None
        self.ended_s = 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._scanner.answer_s)

    @property
    def done(self) -> bool:
        """Whether everything was sent. Raises what went wrong while studies were made or sent."""
        if self._thread.is_alive():
            return False
        if self._problem:
            raise self._problem
        return True

    def _all(self) -> None:
        try:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="scanner") as pool:
                for running in list(self._started(pool)):
                    running.result()
        except BaseException as problem:  # noqa: BLE001 — handed to whoever asks ``done``
            self._problem = problem
        self.ended_s = time.monotonic()

    def _started(self, pool: ThreadPoolExecutor) -> Iterator["Future[None]"]:
        for study in self._studies:
            self._room.acquire()
            if self._stop.is_set():
                return
            with self._lock:
                self._board.begin(study.study_instance_uid, study.label, study.truth, len(study.images))
            yield pool.submit(self._one, study)

    def _one(self, study: DemoStudy) -> None:
        try:
            told = partial(self._told, study.study_instance_uid)
            send_images(study.images, self._scanner, told, self._stop, self._pace)
        finally:
            self._room.release()

    def _told(self, uid: str, answer: Sent) -> None:
        status = "no answer" if answer.status is None else f"0x{answer.status:04X}"
        refusal = None if answer.stored else f"{status} {answer.detail}".strip()
        with self._lock:
            self._board.sent(uid, answer.image.sop_instance_uid, refusal, answer.began_s, answer.ended_s)
