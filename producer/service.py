"""The producer as one long-running service: its doors open and close together."""

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

from contracts.deadline import Deadline
from contracts.ports import Log
from producer.stamp_call import monotonic_s

TURN_S = 0.05  # how often we look whether the watch still watches
LOG_END_S = 1.0  # what the log gets at least: every future that somebody waits for has ended by then
START_GRACE_S = 5.0  # for the broker to be found, so that a sender who waits for us is not turned away at once


class Door(Protocol):
    """One way in."""

    name: str

    def start(self) -> None:
        """Binds and returns. Raises OSError."""

    def addresses(self) -> Mapping[str, str]:
        """What it listens on, once started."""

    def close(self, timeout_s: float) -> None:
        """Takes nothing new, finishes what is in hand, at most that long."""


class Telling(Protocol):
    """Something that knows of a peer."""

    def peers(self) -> Mapping[str, str]:
        """Peer name → state."""


class Watch(Telling, Protocol):
    """Something that runs beside the doors."""

    def run(self, stop: threading.Event) -> None:
        """Until stopped."""

    def checked(self) -> bool:
        """Whether the broker was found once."""


class ProducerService:
    """Implements ``contracts.ports.Service``.

    Ready once the doors are open and the broker was found or did not come in time: without it we answer 0xA700.
    """

    name = "producer"

    def __init__(
        self, doors: Sequence[Door], watch: Watch, log: Log, drain_s: float, others: Sequence[Telling] = ()
    ) -> None:
        self._doors, self._watch, self._log, self._drain_s = doors, watch, log, drain_s
        self._telling = (watch, *others)
        self._open = threading.Event()
        self._waited = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """1. Doors open. 2. Watch until stopped. 3. Not ready. 4. Doors close together. 5. The log sends the rest.

        The watch may be in the middle of a long question to the broker: it is not waited for.
        """
        opened: list[Door] = []
        watching = _Watching(self._watch, stop)
        grace = threading.Timer(START_GRACE_S, self._waited.set)
        grace.start()
        try:
            for door in self._doors:
                door.start()
                opened.append(door)
            self._open.set()
            watching.until(stop)
        finally:
            grace.cancel()
            self._open.clear()
            deadline = Deadline.after(self._drain_s, monotonic_s)
            _close(opened, self._drain_s)
            self._log.close(max(LOG_END_S, deadline.remaining_s()))

    def ready(self) -> bool:
        """Able to answer its callers, whatever the broker does (design decision 13)."""
        return self._open.is_set() and (self._watch.checked() or self._waited.is_set())

    def peers(self) -> Mapping[str, str]:
        """The broker, what is to be said of its topics, and the payload store."""
        return {name: state for telling in self._telling for name, state in telling.peers().items()}

    def addresses(self) -> Mapping[str, str]:
        """dicom, stow, folder."""
        return {name: address for door in self._doors for name, address in door.addresses().items()}


class _Watching(threading.Thread):
    """The watch in a thread of its own, and what ended it."""

    def __init__(self, watch: Watch, stop: threading.Event) -> None:
        super().__init__(name="triage-watch", daemon=True)
        self._watch, self._stop_asked = watch, stop
        self._problem: BaseException | None = None

    def run(self) -> None:
        """Until stopped, or something is wrong."""
        try:
            self._watch.run(self._stop_asked)
        except BaseException as problem:  # noqa: BLE001 - raised again where the service runs
            self._problem = problem

    def until(self, stop: threading.Event) -> None:
        """Raises what the watch raised."""
        self.start()
        while self.is_alive() and not stop.wait(TURN_S):
            pass
        if self._problem is not None:
            raise self._problem


def _close(doors: Sequence[Door], drain_s: float) -> None:
    """Side by side, so that the slowest decides how long it takes."""
    closing = [threading.Thread(target=door.close, args=(drain_s,), name=f"triage-close-{door.name}") for door in doors]
    for thread in closing:
        thread.start()
    for thread in closing:
        thread.join()
