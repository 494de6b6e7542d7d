"""The decoder process with a decoder that does on demand what a native library does to hostile bytes."""

import ctypes
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from worker.scoring import decoder_in
from worker.scoring.frame import EncodedFrame, Pixels, decoded

HERE = Path(__file__)


def crash() -> object:
    """A wild pointer."""
    return ctypes.string_at(8)


def hang() -> object:
    """A loop inside a library: no Python code runs, no signal handler either."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    while True:
        time.sleep(60)


def eat() -> object:
    """More than any frame needs."""
    return bytearray(1 << 40)


def escape() -> object:
    """A library that was taken over tries to get out; it must not get anywhere."""
    attempts: tuple[Callable[[], object], ...] = (
        lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        lambda: os.open("/etc/passwd", os.O_RDONLY),
        lambda: os.open(HERE.with_name("written"), os.O_WRONLY | os.O_CREAT),
    )
    for attempt in attempts:
        try:
            attempt()
        except OSError:
            continue
        os.abort()
    return None


FAULTS: dict[bytes, Callable[[], object]] = {b"crash": crash, b"hang": hang, b"eat": eat, b"escape": escape}


def decode(frame: EncodedFrame) -> Pixels:
    """What the codestream asks for; a sound one is decoded."""
    word = frame.codestream.split(b"!")[0]
    if word == b"lie":
        return np.zeros((1, 1), dtype=np.int16)
    if word == b"pid":
        return np.full(frame.shape, os.getpid(), dtype=np.int32)
    if word in FAULTS:
        try:
            FAULTS[word]()
        except MemoryError:
            raise NotAnalysable(Reason.PIXELS_OVER_BUDGET) from None
        return np.zeros(frame.shape, dtype=np.int16)
    return decoded(frame)


if __name__ == "__main__":
    decoder_in.run(decode)
