"""Decoder processes: kept, reused, watched, killed and replaced. What they answer is checked before it is believed.

A frame whose decoder crashes is tried once more in a fresh one: perhaps it was the machine (no memory left), not the
frame. A decoder that is silent beyond ``decode_timeout_s`` is killed, and the frame is not tried again.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from contracts.deadline import Deadline
from contracts.errors import NotAnalysable, PeerAway
from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.settings import ScoringSettings
from worker.scoring.decoder_in import ANSWER, GOOD, OVER_BUDGET, READY, REQUEST, UNDECODABLE, WORDS_BYTES
from worker.scoring.frame import DecodeFrame, EncodedFrame, Pixels, checked

PEER = "decoder"
COMMAND = (sys.executable, "-m", "worker.scoring.decoder_in")
TRIES = 2
_START_S = 30.0  # Python, numpy and the libraries: about one second, far more where the machine is busy
_FRAMES_MAX = 5_000  # then a decoder is replaced: its libraries may leak
_END_S = 2.0  # for a killed process to be gone
_KEPT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ")  # of the environment: nothing secret
_SINGLE = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")  # address space


class _Crashed(Exception):
    """The process is gone, or answers nonsense."""


class _Hung(Exception):
    """It does not answer in time."""


class Decoders:
    """At most as many processes as callers at once. Safe to use from many threads."""

    def __init__(self, settings: ScoringSettings, hooks: Hooks, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._hooks = hooks
        self._command = command
        self._lock = threading.Lock()
        self._idle: list[_Decoder] = []
        self._busy: set[_Decoder] = set()
        self._closed = False

    def __call__(self) -> DecodeFrame:
        """For one instance: its frames have ``decode_instance_s`` together."""
        left_s = self._settings.decode_instance_s

        def decode(frame: EncodedFrame) -> Pixels:
            nonlocal left_s
            began_s = time.monotonic()
            try:
                return self._decoded(frame, min(left_s, self._settings.decode_timeout_s))
            finally:
                left_s -= time.monotonic() - began_s

        return decode

    def close(self) -> None:
        """Ends every process, busy or not; who still waits for one gets PeerAway."""
        with self._lock:
            self._closed = True
            idle, self._idle, busy = self._idle, [], list(self._busy)
        for decoder in idle:
            decoder.end()
        for decoder in busy:  # whoever waits for it hears of its end, and clears up
            decoder.kill()

    def _decoded(self, frame: EncodedFrame, timeout_s: float) -> Pixels:
        """Raises NotAnalysable for what the frame does to its decoder, PeerAway where none can be had."""
        if timeout_s <= 0.0:
            raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoding took too long")
        for _ in range(TRIES):
            decoder = self._taken()
            try:
                return self._tried(decoder, frame, timeout_s)
            except _Crashed:
                self._replace(decoder, "crashed")
            except _Hung as problem:
                self._replace(decoder, "hung")
                raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoder hung") from problem
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoder crashed")

    def _tried(self, decoder: "_Decoder", frame: EncodedFrame, timeout_s: float) -> Pixels:
        try:
            values = decoder.decode(frame, timeout_s)
        except NotAnalysable as problem:
            if problem.reason is Reason.PIXELS_OVER_BUDGET:
                self._replace(decoder, "memory")  # what is left of its address space is in pieces
            else:
                self._give_back(decoder)
            raise
        self._give_back(decoder)
        return values

    def _taken(self) -> "_Decoder":
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
            if decoder is not None:
                self._busy.add(decoder)
        return decoder or self._started()

    def _started(self) -> "_Decoder":
        self._check_open()
        decoder = _Decoder(self._command, self._settings.decoder_memory_bytes)
        with self._lock:
            if not self._closed:
                self._busy.add(decoder)
                return decoder
        decoder.end()
        raise PeerAway(PEER, "closed")

    def _check_open(self) -> None:
        if self._closed:
            raise PeerAway(PEER, "closed")

    def _give_back(self, decoder: "_Decoder") -> None:
        worn = decoder.frames >= _FRAMES_MAX
        with self._lock:
            self._busy.discard(decoder)
            keep = not worn and not self._closed
            if keep:
                self._idle.append(decoder)
        if not keep:
            decoder.end()
        if worn:
            self._hooks.happened(Happening.DECODER_REPLACED, why="worn")

    def _replace(self, decoder: "_Decoder", why: str) -> None:
        decoder.end()
        with self._lock:
            self._busy.discard(decoder)
        self._check_open()  # closing killed it: nothing is the frame's fault
        self._hooks.happened(Happening.DECODER_REPLACED, why=why)


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


class _Decoder:
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
        except (_Crashed, _Hung) as problem:
            self.end()
            raise PeerAway(PEER, "it does not start") from problem
        if ready != READY:
            self.end()
            raise PeerAway(PEER, "it does not start")

    def decode(self, frame: EncodedFrame, timeout_s: float) -> Pixels:
        """Raises NotAnalysable, _Crashed, _Hung."""
        self.frames += 1
        deadline = Deadline.after(timeout_s, time.monotonic)
        options = json.dumps({**frame.options, "transfer_syntax_uid": frame.transfer_syntax_uid}).encode()
        self._send((REQUEST.pack(timeout_s, len(options), len(frame.codestream)), options, frame.codestream), deadline)
        head = _Head(*ANSWER.unpack(self._received(ANSWER.size, deadline)))
        if not head.fits(frame):
            raise _Crashed
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
            raise _Hung from problem
        except OSError as problem:
            raise _Crashed from problem

    def _received(self, count: int, deadline: Deadline) -> bytearray:
        received = bytearray(count)
        view, have = memoryview(received), 0
        try:
            while have < count:
                self._line.settimeout(_left_s(deadline))
                got = self._line.recv_into(view[have:])
                if not got:
                    raise _Crashed
                have += got
        except TimeoutError as problem:
            raise _Hung from problem
        except OSError as problem:
            raise _Crashed from problem
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
