"""Runs the services of one process: start, stop on a signal, drain, and an exit code that tells the truth.

1. Probes answer (``/ready`` is 503 until every service is ready).
2. Every service runs in a thread of its own.
3. SIGTERM or SIGINT sets ``stop``; so does a service that fails, or ends unasked. A second signal ends at once.
4. Services drain, at most ``drain_s``; then the probes stop.
5. Exit code 0 after a clean drain, 1 where a service failed or did not drain.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from contracts.errors import SettingsError
from contracts.ports import Service
from launch.log_out import JsonLog
from launch.probes_out import Probes, addresses

_TURN_S = 0.2  # the main thread looks that often whether a service died
_SAME_WISH_S = 1.0  # a terminal's SIGINT and a supervisor's SIGTERM within that time are one wish, not two
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Watched(threading.Thread):
    """One service in its thread; remembers how it ended."""

    def __init__(self, service: Service, stop: threading.Event, log: JsonLog) -> None:
        super().__init__(name=service.name, daemon=True)
        self.failed = False
        self.wrong_setting: SettingsError | None = None
        self._service = service
        self._stop_asked = stop
        self._log = log

    def run(self) -> None:
        """A service that raises, or returns before it was asked to, takes the process with it."""
        try:
            self._service.run(self._stop_asked)
        except SettingsError as wrong:
            self.wrong_setting = wrong
        except BaseException as problem:  # noqa: BLE001 — whatever ended it, the process must say so and exit 1
            self.failed = True
            self._log.failure("service_failed", problem, name=self._service.name)
        else:
            self.failed = not self._stop_asked.is_set()
            if self.failed:
                self._log.write(logging.ERROR, "service_ended_unasked", {"name": self._service.name})
        self._stop_asked.set()


def run_services(services: Sequence[Service], probes: Probes, log: JsonLog, drain_s: float) -> int:
    """Blocks until the services have ended; returns the process's exit code. Called in the main thread.

    Raises SettingsError where a service found only while it ran that a setting is wrong (a broker's durability).
    """
    stop = threading.Event()
    with _signals(stop):
        probes.start()
        watched = [_Watched(service, stop, log) for service in services]
        for thread in watched:
            thread.start()
        _wait(services, stop, probes, log)
        probes.draining()
        drained = _drain(watched, drain_s, log)
        probes.stop()
    wrong = [thread.wrong_setting for thread in watched if thread.wrong_setting]
    failed = not drained or bool(wrong) or any(thread.failed for thread in watched)
    log.write(logging.INFO, "stopped", {"clean": not failed})
    if wrong:
        raise wrong[0]
    return int(failed)


def _wait(services: Sequence[Service], stop: threading.Event, probes: Probes, log: JsonLog) -> None:
    """Until stop; tells the addresses once, as soon as every service is ready."""
    log.write(logging.INFO, "started", {"addresses": {"probes": probes.address}})
    told = False
    while not stop.wait(_TURN_S):
        if not told and all(service.ready() for service in services):
            told = True
            log.write(logging.INFO, "ready", {"addresses": {"probes": probes.address, **addresses(services)}})
    log.write(logging.INFO, "stopping")


def _drain(watched: Sequence[_Watched], drain_s: float, log: JsonLog) -> bool:
    until = time.monotonic() + drain_s
    for thread in watched:
        thread.join(max(0.0, until - time.monotonic()))
    late = [thread.name for thread in watched if thread.is_alive()]
    if late:
        log.write(logging.ERROR, "not_drained", {"names": late, "drain_s": drain_s})
    return not late


@contextmanager
def _signals(stop: threading.Event) -> Iterator[None]:
    asked_at: list[float] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if asked_at and now - asked_at[0] > _SAME_WISH_S:
            os._exit(128 + number)
        asked_at.append(now)
        stop.set()

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
