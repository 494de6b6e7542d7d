"""One decoder process: started, asked, killed. What it answers is checked before it is believed."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from contracts.deadline import Deadline
from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Reason
from worker.scoring.decoder_in import ANSWER, GOOD, OVER_BUDGET, READY, REQUEST, UNDECODABLE, WORDS_BYTES
from worker.scoring.frame import EncodedFrame, Pixels, checked

PEER = "decoder"
COMMAND = (sys.executable, "-m", "worker.scoring.decoder_in")
_START_S = 30.0  # Python, numpy and the libraries: about one second, far more where the machine is busy
_END_S = 2.0  # for a killed process to be gone
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")  # of the environment: nothing secret
_SINGLE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # address space


class Crashed(Exception):
    """The process is gone, or answers nonsense."""


class Hung(Exception):
    """It does not answer in time."""


@dataclass(frozen=True, slots=True)
class _Head:
    outcome: int
    value_bytes: int
    signed: int
    rows: int
    columns: int
    body_bytes: int

    def fits(self, frame: EncodedFrame) -> bool:
        """Whether a sane decoder could have said this of the frame."""
        if self.outcome == GOOD:
            right = (self.rows, self.columns) == frame.shape and self.value_bytes in (1, 2, 4, 8) and self.signed <= 1
            return right and self.body_bytes == self.rows * self.columns * self.value_bytes
        return self.outcome in (UNDECODABLE, OVER_BUDGET) and self.body_bytes <= WORDS_BYTES


class Decoder:
    """One process and the socket to it. Used by one thread at a time."""

    def __init__(self, command: Sequence[str], memory_bytes: int) -> None:
        """Raises PeerAway where it does not start: that is never the image's fault."""
        self.frames = 0
        self._line, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = _process(command, theirs, memory_bytes)
        except OSError as problem:
            self._line.close()
            raise PeerAway(PEER, type(problem).__name__) from problem
        try:
            ready = self._received(len(READY), Deadline.after(_START_S, time.monotonic))
        except (Crashed, Hung) as problem:
            self.end()
            raise PeerAway(PEER, "it does not start") from problem
        if ready != READY:
            self.end()
            raise PeerAway(PEER, "it does not start")

    def decode(self, frame: EncodedFrame, timeout_s: float) -> Pixels:
        """Raises NotAnalysable, Crashed, Hung."""
        self.frames += 1
        deadline = Deadline.after(timeout_s, time.monotonic)
        options = json.dumps({**frame.options, "transfer_syntax_uid": frame.transfer_syntax_uid}).encode()
        self._send((REQUEST.pack(timeout_s, len(options), len(frame.codestream)), options, frame.codestream), deadline)
        head = _Head(*ANSWER.unpack(self._received(ANSWER.size, deadline)))
        if not head.fits(frame):
            raise Crashed
        body = self._received(head.body_bytes, deadline)
        if head.outcome != GOOD:
            reason = Reason.PIXELS_OVER_BUDGET if head.outcome == OVER_BUDGET else Reason.PIXELS_UNDECODABLE
            raise NotAnalysable(reason, _words(body))
        dtype = np.dtype(f"<{'i' if head.signed else 'u'}{head.value_bytes}")
        return checked(np.frombuffer(body, dtype=dtype).reshape(frame.shape), frame)

    def kill(self) -> None:
        """From any thread."""
        self._process.kill()

    def end(self) -> None:
        """Kills it, and waits until it is gone."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        self._line.close()

    def _send(self, parts: Sequence[bytes], deadline: Deadline) -> None:
        try:
            for part in parts:
                self._line.settimeout(_left_s(deadline))
                self._line.sendall(part)
        except TimeoutError as problem:
            raise Hung from problem
        except OSError as problem:
            raise Crashed from problem

    def _received(self, count: int, deadline: Deadline) -> bytearray:
        received = bytearray(count)
        view, have = memoryview(received), 0
        try:
            while have < count:
                self._line.settimeout(_left_s(deadline))
                got = self._line.recv_into(view[have:])
                if not got:
                    raise Crashed
                have += got
        except TimeoutError as problem:
            raise Hung from problem
        except OSError as problem:
            raise Crashed from problem
        return received


def _process(command: Sequence[str], theirs: socket.socket, memory_bytes: int) -> "subprocess.Popen[bytes]":
    """Started, not forked from our threads; a group of its own, so that a terminal's SIGINT is not its business."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | _SINGLE
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(  # our own module
        [*command, str(theirs.fileno()), str(memory_bytes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,  # libraries print what they find
        stderr=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
        env=environment,
    )


def _left_s(deadline: Deadline) -> float:
    left_s = deadline.remaining_s()
    if left_s <= 0.0:
        raise TimeoutError
    return left_s


def _words(body: bytearray) -> str:
    """Printable words of a decoder that may have been taken over: they go into a dead letter's header."""
    return "".join(character for character in body.decode("ascii", "replace") if character.isprintable())
