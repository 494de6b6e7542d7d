"""What every part of the stack is: a real server that is started, asked whether it answers, watched, stopped."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path

from contracts.errors import TriageError
from launch.stack.leash import spawn
from launch.stack.ports import LOOPBACK, HeldPort, hold_port

POLL_S = 0.05  # how often a starting or stopping part is looked at
ANSWER_LIMIT_S = 2.0  # one question to a starting server
TAIL_BYTES = 32 * 1024  # of the log, looked through when a part does not start
TAIL_LINES = 12


class StartFailed(TriageError):
    """A part did not come up. The message says which, why, and ends with the tail of its log."""


class ProgramMissing(StartFailed):
    """A part's program is not installed. The message says what to install."""


class Part(ABC):
    """One server as a child process.

    ``folder`` holds its data and log; it is made when missing and never emptied, so a restart finds what was there.
    Ports are chosen once and kept: after a restart the address is the same.
    """

    name: str
    start_limit_s: float = 30.0
    stop_limit_s: float = 10.0
    at_parents_death: signal.Signals = signal.SIGKILL

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.cwd = self.folder
        self._ports: dict[str, HeldPort] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._group_ended = True  # its number may belong to somebody else by now

    # What each server says of itself

    @abstractmethod
    def command(self) -> Sequence[str]:
        """Program and arguments. Raises ProgramMissing."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does its work for a caller now: more than an open port."""

    def environment(self) -> Mapping[str, str]:
        """The child's environment."""
        return os.environ

    def prepare(self) -> None:  # noqa: B027  # most servers need nothing
        """Writes what the server wants to find in its folder, before every start."""

    def tidy(self) -> None:  # noqa: B027  # as above
        """Removes what a killed server leaves outside its folder."""

    # The life of the process

    def start(self, limit_s: float | None = None) -> None:
        """Starts it and returns when it answers; does nothing while it runs.

        Raises StartFailed, and leaves no process behind.
        """
        if self.alive():
            return
        self.launch()
        try:
            self.wait_until_answering(limit_s or self.start_limit_s)
        except BaseException:
            self.kill()
            raise

    def launch(self) -> None:
        """Starts the process and returns at once. Raises StartFailed."""
        self.kill()  # helpers of a server that died by itself may live on
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        try:
            self._process = spawn(
                self.command(),
                env=self.environment(),
                cwd=self.cwd,
                log=self.log,
                at_parents_death=self.at_parents_death,
            )
        except OSError as error:
            raise StartFailed(f"{self.name} could not be started: {error}") from error
        self._group_ended = False

    @property
    def ending(self) -> str:
        """How the last process ended, in words."""
        status = self.status or 0
        return f"killed by {signal.Signals(-status).name}" if status < 0 else f"status {status}"

    def wait_until_answering(self, limit_s: float) -> None:
        """Returns when it answers. Raises StartFailed when it ended or has not answered in time."""
        begin = time.monotonic()
        while not self.came_up(time.monotonic() - begin, limit_s):
            time.sleep(POLL_S)

    def came_up(self, waited_s: float, limit_s: float) -> bool:
        """Whether it answers. Raises StartFailed when it ended, or does not and has been waited for long enough."""
        if self.answers():
            return True
        if not self.alive():
            raise StartFailed(f"{self.name} ended while starting ({self.ending}).\n{self.log_tail()}")
        if waited_s > limit_s:
            raise StartFailed(f"{self.name} did not answer within {limit_s:g} s.\n{self.log_tail()}")
        return False

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of the running process; 0 when there is none."""
        return self._process.pid if self._process is not None and self.alive() else 0

    @property
    def status(self) -> int | None:
        """Exit status of the last process (negative: a signal), None while it runs or before the first start."""
        return self._process.poll() if self._process is not None else None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL to the whole process group after ``stop_limit_s``; returns when it has ended."""
        self.ask_to_stop()
        self.wait_until_stopped(self.stop_limit_s)

    def ask_to_stop(self) -> None:
        """SIGTERM to the server; returns at once."""
        if self._process is not None and self.alive():
            self._process.terminate()

    def wait_until_stopped(self, limit_s: float) -> None:
        """Waits for the end, at most that long, then kills what is left of the process group."""
        if self._process is None:
            return
        try:
            self._process.wait(max(limit_s, 0.0))
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole process group, as a power cut would: the server gets no chance to tidy."""
        if self._process is None or self._group_ended:
            return
        _kill_group(self._process.pid)
        self._process.wait()
        self._group_ended = True
        self.tidy()

    def strike(self) -> None:
        """SIGKILL to the whole process group without waiting: safe in a signal handler."""
        if self._process is not None and not self._group_ended:
            _kill_group(self._process.pid)

    def restart(self) -> None:
        """Stops it and starts it again on the same ports and folder."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stops it for good and lets its ports go."""
        try:
            self.stop()
        finally:
            for port in self._ports.values():
                port.release()
            self._ports.clear()

    # Ports and log

    def port(self, name: str) -> int:
        """The port of that name, chosen at the first call."""
        if name not in self._ports:
            self._ports[name] = hold_port()
        return self._ports[name].number

    def address(self, name: str) -> str:
        """``host:port`` of that name."""
        return f"{LOOPBACK}:{self.port(name)}"

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.folder / f"{self.name}.log"

    def log_tail(self) -> str:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL_BYTES))
                text = log.read().decode("utf-8", "replace")
        except OSError:
            return f"It wrote no log ({self.log})."
        lines = text.splitlines()
        telling = [line for line in lines if self.telling(line)] or lines
        return "\n".join([f"The end of {self.log}:", *telling[-TAIL_LINES:]])

    def telling(self, line: str) -> bool:
        """Whether a line of the log says what went wrong."""
        return bool(line)


def wait_until_all_answer(parts: Sequence[Part]) -> None:
    """Returns when every one answers. Raises StartFailed as soon as one of them cannot."""
    begin, pending = time.monotonic(), list(parts)
    while pending:
        waited_s = time.monotonic() - begin
        pending = [part for part in pending if not part.came_up(waited_s, part.start_limit_s)]
        time.sleep(POLL_S)


def _kill_group(pid: int) -> None:
    """Every part leads a group of its own name, so helpers that outlived the server go too."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return  # nobody is left in it


def port_open(port: int) -> bool:
    """Whether something listens on that loopback port."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=ANSWER_LIMIT_S):
            return True
    except OSError:
        return False


def http_ok(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_LIMIT_S) as response:  # noqa: S310  # our own http URL
            return bool(response.status == HTTPStatus.OK)
    except (OSError, HTTPException, ValueError):
        return False
