"""JSON log lines on standard error: one object a line, a closed list of fields, never patient data.

A library's own words may quote a data element, a payload or a password, so its text is told only for libraries that
never see one; for all others the line says who, how bad and where. An exception is told as its type and the places it
came through; its text only if it is one of ours, which never carry patient data.
"""

import json
import logging
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TextIO

from contracts.errors import TriageError

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_SPEAKING = (  # of kafka only the layers that hold no record
    *("uvicorn", "asyncio", "launch", "producer", "worker", "worklist", "contracts"),
    *("kafka.net", "kafka.cluster", "kafka.coordinator"),
)
_FRAMES_TOLD = 12  # of a traceback, innermost last
_NONE: Mapping[str, object] = MappingProxyType({})
_DEBUG_LINES_PER_S = 20  # of one event; what is left out is counted in the next line
_LIBRARY_LINES = (2, 10)  # of one place in a library: that many in so many seconds (a peer that is away repeats itself)


def trace_id(traceparent: str) -> str:
    """The trace id of a W3C traceparent, or "" where it is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match.group(1) if match else ""


class JsonLog:
    """Writes lines of at least ``level``; at DEBUG each event at most so many lines a second. Never raises."""

    def __init__(self, service: str, level: str, stream: TextIO | None = None) -> None:
        self._service = service
        self._level = logging.getLevelName(level)
        self._stream = stream or sys.stderr
        self._lock = threading.Lock()
        self._limit = _Limit(_DEBUG_LINES_PER_S, 1, time.monotonic)

    def write(self, level: int, event: str, fields: Mapping[str, object] = _NONE, traceparent: str = "") -> None:
        """One line. ``fields`` are metric labels, addresses, numbers: what the caller knows to be no patient data."""
        if level < self._level:
            return
        suppressed = self._limit.suppressed(event) if level <= logging.DEBUG else 0
        if suppressed is not None:
            self._put(_line(level, self._service, event, traceparent, {**fields, **_if_any("suppressed", suppressed)}))

    def failure(self, event: str, problem: BaseException, **fields: object) -> None:
        """An error that nobody expected: its type and the places it came through."""
        self.write(logging.ERROR, event, {**fields, **told(problem)})

    def _put(self, line: str) -> None:
        try:
            with self._lock:
                self._stream.write(line + "\n")
                self._stream.flush()
        except (OSError, ValueError):  # standard error was closed: there is nobody left to tell
            return


def _if_any(name: str, count: int) -> dict[str, object]:
    return {name: count} if count else {}


def _line(level: int, service: str, event: str, traceparent: str, fields: Mapping[str, object]) -> str:
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    line = {"ts": stamp, "level": logging.getLevelName(level).lower(), "service": service, "event": event}
    if trace := trace_id(traceparent):
        line["trace_id"] = trace
    return json.dumps(line | dict(fields), default=str, ensure_ascii=False)


def told(problem: BaseException) -> dict[str, object]:
    """What may be said of an exception: type, places, and the words of our own errors."""
    frames = traceback.extract_tb(problem.__traceback__)[-_FRAMES_TOLD:]
    fields: dict[str, object] = {
        "error": type(problem).__name__,
        "where": [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in frames],
    }
    return fields | ({"detail": str(problem)} if isinstance(problem, TriageError) else {})


def _short(path: str) -> str:
    return "/".join(path.rsplit("/", 2)[-2:])


class _Limit:
    """At most ``lines`` of one event in a window of so many seconds."""

    def __init__(self, lines: int, window_s: int, clock: Callable[[], float]) -> None:
        self._lines = lines
        self._window_s = window_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[int, int]] = {}  # event → (window, lines in it)

    def suppressed(self, event: str) -> int | None:
        """None where the line is left out; else how many were left out in the last window that had any."""
        window = int(self._clock() / self._window_s)
        with self._lock:
            last, count = self._seen.get(event, (window, 0))
            self._seen[event] = (window, count + 1 if last == window else 1)
        if last != window:
            return max(0, count - self._lines)
        return 0 if count < self._lines else None


class Bridge(logging.Handler):
    """Python's own logging, warnings included, into the same lines."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log
        self._limit = _Limit(*_LIBRARY_LINES, time.monotonic)

    def emit(self, record: logging.LogRecord) -> None:
        """The text of libraries that never see patient data; of others, only the place."""
        place = f"{record.name} {record.module}:{record.lineno}"
        suppressed = self._limit.suppressed(place)
        if suppressed is None:
            return
        fields: dict[str, object] = {"logger": record.name, "at": f"{record.module}:{record.lineno}"}
        if record.name.startswith(_SPEAKING):
            fields["detail"] = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            fields |= told(record.exc_info[1])
        self._log.write(record.levelno, "library", fields | _if_any("suppressed", suppressed))

    def install(self) -> None:
        """Becomes the root's only handler; captures warnings too."""
        logging.captureWarnings(capture=True)
        warnings.simplefilter("always")  # else Python keeps the text of each for ever: it quotes data elements
        root = logging.getLogger()
        root.handlers[:] = [self]
        root.setLevel(logging.WARNING)
