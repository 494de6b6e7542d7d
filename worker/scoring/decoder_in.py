"""A decoder process: takes compressed frames over a socket, gives stored values back. Started by ``decoder_call``.

Whatever hostile bytes do to the native libraries, they do it here:
  1. signals for a whole group of processes do not end decoding: the worker drains, and then closes the socket
  2. address space, files, sockets and, for an ordinary user, processes are limited before the first frame is taken
  3. a frame that takes too long ends this process by an alarm, also where the worker has been killed meanwhile
  4. the worker's end is the socket's end, and the socket's end is this process's

A frame: ``REQUEST`` (seconds, bytes of options, bytes of codestream), options as JSON, codestream.
Its answer: ``ANSWER`` (outcome, bytes a value, signed, rows, columns, bytes), then the values in little-endian order,
or what happened in a few words.
"""

import json
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from struct import Struct

import numpy as np

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from worker.scoring.frame import DecodeFrame, EncodedFrame, Pixels, decoded

REQUEST = Struct("<dII")
ANSWER = Struct("<BBBHHQ")
READY = b"ready"
GOOD, UNDECODABLE, OVER_BUDGET = range(3)
WORDS_BYTES = 200
ALARM_MARGIN_S = 1.0  # after the worker's own patience: whoever still lives has killed this process by then

_OUTCOMES = {Reason.PIXELS_OVER_BUDGET: OVER_BUDGET}


def main(line: socket.socket, memory_bytes: int, decode: DecodeFrame = decoded) -> None:
    """Until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a handler would wait for the library to return
    confine(memory_bytes)
    line.sendall(READY)
    while request := _received(line, REQUEST.size):
        timeout_s, options_bytes, codestream_bytes = REQUEST.unpack(request)
        signal.setitimer(signal.ITIMER_REAL, timeout_s + ALARM_MARGIN_S)
        options = json.loads(_received(line, options_bytes))
        frame = EncodedFrame(options.pop("transfer_syntax_uid"), options, _received(line, codestream_bytes))
        answer = answered(frame, decode)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for part in answer:
            line.sendall(part)


def confine(memory_bytes: int) -> None:
    """``memory_bytes`` more address space than now, and nothing new: no file, no socket, no process, no core dump.

    *No process* holds for an ordinary user only: RLIMIT_NPROC does not bind root, nor CAP_SYS_RESOURCE or CAP_SYS_ADMIN
    (setrlimit(2)), and they could raise every limit again. As root, code that takes the decoder over can fork; each
    child is bound by the same limits on memory and files but not by our alarm (fork(2)), and outlives a kill. Workers
    are therefore to run as an ordinary user (docs/safety.md). This bounds what bytes do to libraries; it is no sandbox.
    """
    limits = {
        resource.RLIMIT_AS: _address_space_bytes() + memory_bytes,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for limit, value in limits.items():
        resource.setrlimit(limit, (value, value))


def answered(frame: EncodedFrame, decode: DecodeFrame) -> tuple[bytes, memoryview]:
    """The answer's head and body."""
    try:
        return _good(decode(frame))
    except NotAnalysable as problem:
        words = problem.detail.encode("ascii", "replace")[:WORDS_BYTES]
        return ANSWER.pack(_OUTCOMES.get(problem.reason, UNDECODABLE), 0, 0, 0, 0, len(words)), memoryview(words)


def _good(values: Pixels) -> tuple[bytes, memoryview]:
    ordered = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    head = ANSWER.pack(GOOD, ordered.itemsize, ordered.dtype.kind == "i", *ordered.shape, ordered.nbytes)
    return head, ordered.data.cast("B")


def _received(line: socket.socket, count: int) -> bytes:
    """Exactly so many bytes; none at the end of the socket. A worker that goes in the middle ends this process."""
    received = bytearray(count)
    view, have = memoryview(received), 0
    while have < count:
        got = line.recv_into(view[have:])
        if not got:
            if have:
                sys.exit(1)
            return b""
        have += got
    return bytes(received)


def _address_space_bytes() -> int:
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]  # proc(5)
    return int(pages) * resource.getpagesize()


def run(decode: DecodeFrame = decoded, arguments: Callable[[], list[str]] = lambda: sys.argv[1:]) -> None:
    """The command: the socket's file descriptor, and bytes of address space."""
    number, memory_bytes = arguments()
    try:
        main(socket.socket(fileno=int(number)), int(memory_bytes), decode)
    except (BrokenPipeError, ConnectionResetError):  # the worker is gone
        sys.exit(1)


if __name__ == "__main__":
    run()
