"""The scoring service: workers between the reader of scans and the log. Its ports are injected by ``launch``."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.ports import Log
from worker.scoring.custody import Custody, Fetched
from worker.scoring.settling import Settling

_TURN_S = 0.2  # how often an idle worker looks whether it should stop
_PEER_WATCH_S = 2.0  # between two looks at the inference server, for the probes
_LOG_CLOSE_S = 1.0  # nothing that counts is in flight then: what was not acknowledged is not settled
_JOIN_S = 1.0  # for all workers together: one that is told to give up does so within a pause, or waits for a peer


class Reader(Protocol):
    """What fetches records into custody and commits what is settled: ``kafka_in.ScanReader``."""

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set and the work in hand is drained."""

    def turning(self) -> bool:
        """Whether the loop turns."""

    def up(self) -> bool | None:
        """Whether the broker answered lately; None before it was asked."""


class Closing(Protocol):
    """What only has to be ended: ``decoders_call.Decoders``."""

    def close(self) -> None:
        """Ends it."""


class Server(Protocol):
    """What the service itself asks of the inference server: ``triton_call.TritonCall``."""

    def up(self) -> bool:
        """Whether it is ready; asks it."""

    def close(self) -> None:
        """Ends the connection."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the service works with. ``decoding``: how many may decode at once; ``workers``: records in work at once."""

    custody: Custody
    reader: Reader
    server: Server
    log: Log
    settling: Settling
    decoding: threading.Semaphore
    decoders: Closing
    workers: int


class ScoringService:
    """Implements ``contracts.ports.Service``."""

    name = "scoring"

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._turnstile = threading.Lock()
        self._server_up: bool | None = None
        self._done = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """1. Workers start. 2. The reader runs until ``stop``, and drains. 3. Workers that are left give up."""
        threads = [self._thread("watch", self._watch)]
        threads += [self._thread(str(number), self._work) for number in range(self._ports.workers)]
        try:
            self._ports.reader.run(stop)
        finally:
            self._ports.custody.close()
            self._done.set()
            self._ports.decoders.close()
            _join(threads)
            self._ports.server.close()
            self._ports.log.close(_LOG_CLOSE_S)

    def ready(self) -> bool:
        """The reader's loop turns: scans are taken as soon as the peers are there (design decision 13)."""
        return self._ports.reader.turning()

    def peers(self) -> Mapping[str, str]:
        """Broker and inference server."""
        words = {True: "up", False: "away", None: "unknown"}
        return {"kafka": words[self._ports.reader.up()], "triton": words[self._server_up]}

    def addresses(self) -> Mapping[str, str]:
        """It listens on nothing."""
        return {}

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=target, name=f"scoring-{name}", daemon=True)
        thread.start()
        return thread

    def _watch(self) -> None:
        while not self._done.is_set():
            self._server_up = self._ports.server.up()
            self._done.wait(_PEER_WATCH_S)

    def _work(self) -> None:
        while not self._ports.custody.closed:
            record = self._next()
            if record is not None:
                self._ports.settling.handle(record)

    def _next(self) -> Fetched | None:
        """A record is taken only when a decoder is free, so that a stat scan waits behind as few as possible."""
        with self._turnstile:
            if not self._ports.custody.wait(_TURN_S):
                return None
            with self._ports.decoding:
                return self._ports.custody.take()


def _join(threads: Sequence[threading.Thread]) -> None:
    """Waits for all of them together, not for one after the other."""

    def wait() -> None:
        for thread in threads:
            thread.join()

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join(_JOIN_S)
