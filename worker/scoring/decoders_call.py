"""Decoder processes: kept, reused, and replaced when they crash, hang, run out of memory or are worn.

A frame whose decoder crashes is tried once more in a fresh one: perhaps it was the machine (no memory left), not the
frame. A decoder that is silent beyond ``decode_timeout_s`` is killed, and the frame is not tried again. Whose frame
hung is likely to have more of that kind: each hang leaves the frames of its series a quarter of the patience, so that a
poison study of hundreds of images does not hold up all others for an hour.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence

from contracts.errors import NotAnalysable, PeerAway
from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.settings import ScoringSettings
from worker.scoring.decoder_call import COMMAND, PEER, Crashed, Decoder, Hung
from worker.scoring.frame import DecodeFrame, EncodedFrame, Pixels

TRIES = 2
_PATIENCE_SHARE, _PATIENCE_MIN_S = 0.25, 1.0  # what a hang leaves to its series, and never less than that
_SUSPECTS_MAX = 1_000  # series remembered for a hang; the oldest is forgotten
_FRAMES_MAX = 5_000  # then a decoder is replaced: its libraries may leak


class Decoders:
    """At most as many processes as callers at once. Safe to use from many threads."""

    def __init__(self, settings: ScoringSettings, hooks: Hooks, command: Sequence[str] = COMMAND) -> None:
        self._settings = settings
        self._hooks = hooks
        self._command = command
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        self._busy: set[Decoder] = set()
        self._patience_s: OrderedDict[str, float] = OrderedDict()  # by series, after a hang
        self._closed = False

    def __call__(self, series_instance_uid: str) -> DecodeFrame:
        """For one instance: its frames have ``decode_instance_s`` together."""
        left_s = self._settings.decode_instance_s

        def decode(frame: EncodedFrame) -> Pixels:
            nonlocal left_s
            began_s = time.monotonic()
            try:
                return self._decoded(frame, min(left_s, self._patience_with(series_instance_uid)))
            except Hung as problem:
                self._suspect(series_instance_uid)
                raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoder hung") from problem
            finally:
                left_s -= time.monotonic() - began_s

        return decode

    def _patience_with(self, series: str) -> float:
        with self._lock:
            return self._patience_s.get(series, self._settings.decode_timeout_s)

    def _suspect(self, series: str) -> None:
        with self._lock:
            before_s = self._patience_s.pop(series, self._settings.decode_timeout_s)
            self._patience_s[series] = min(before_s, max(_PATIENCE_MIN_S, before_s * _PATIENCE_SHARE))
            if len(self._patience_s) > _SUSPECTS_MAX:
                self._patience_s.popitem(last=False)

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
        """Raises NotAnalysable for what the frame does to its decoder, Hung, PeerAway where none can be had."""
        if timeout_s <= 0.0:
            raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoding took too long")
        for _ in range(TRIES):
            decoder = self._taken()
            try:
                return self._tried(decoder, frame, timeout_s)
            except Crashed:
                self._replace(decoder, "crashed")
            except Hung:
                self._replace(decoder, "hung")
                raise
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "decoder crashed")

    def _tried(self, decoder: "Decoder", frame: EncodedFrame, timeout_s: float) -> Pixels:
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

    def _taken(self) -> "Decoder":
        with self._lock:
            decoder = self._idle.pop() if self._idle else None
            if decoder is not None:
                self._busy.add(decoder)
        return decoder or self._started()

    def _started(self) -> "Decoder":
        self._check_open()
        decoder = Decoder(self._command, self._settings.decoder_memory_bytes)
        with self._lock:
            if not self._closed:
                self._busy.add(decoder)
                return decoder
        decoder.end()
        raise PeerAway(PEER, "closed")

    def _check_open(self) -> None:
        if self._closed:
            raise PeerAway(PEER, "closed")

    def _give_back(self, decoder: "Decoder") -> None:
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

    def _replace(self, decoder: "Decoder", why: str) -> None:
        decoder.end()
        with self._lock:
            self._busy.discard(decoder)
        self._check_open()  # closing killed it: nothing is the frame's fault
        self._hooks.happened(Happening.DECODER_REPLACED, why=why)
