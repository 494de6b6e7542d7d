"""The durable log: ``contracts.ports.Log`` over kafka-python, with the guards against its faults.

How a record is appended
  1. too large, buffer full, or broker known to be away: its future fails at once, the client is not touched
  2. a line is open: the record goes to its producer, in the caller's thread, without blocking
  3. a line is being opened: the record waits in order and follows when the line is open
  4. the future yields the place when every in-sync replica has it, or fails when ``ack_timeout_s`` is over

How the line is kept
  a. the keeper opens it: topics exist and agree, producer connected; on failure what waits fails, and it tries again
  b. the clock fails what is overdue and asks the broker for a sign of life
  c. overdue, fatal error, or silent and idle: the line is replaced. New records wait, those in flight get DRAIN_S,
     then the old producer is ended and what it still held fails: order within a partition is kept.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import Enum, auto

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused, SettingsError
from contracts.hooks import Happening, Hooks
from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.connect_call import PEER, topics_of
from launch.clients.line_call import Line, Owner, Pending, too_late
from launch.clients.topics_call import create_missing, one_count

TICK_S = 0.1  # how late a deadline may be noticed
SIGN_OF_LIFE_S = 2.0  # between two questions to the broker
SILENT_S = 6.0  # no answer that long: down; as a consumer's session timeout
DRAIN_S = 1.0  # what a replaced producer gets to finish what is in flight
RETRY_S = 0.5  # between two attempts to open a line
FIRST_ANSWER_S = 1.0  # how long ``partitions`` waits for the very first attempt


class State(Enum):
    """Where the way to the broker stands."""

    OPENING = auto()  # records wait
    OPEN = auto()  # records go
    AWAY = auto()  # records are refused at once
    CLOSED = auto()


class KafkaLog:
    """Implements ``contracts.ports.Log``. Connects in the background, and keeps trying while the broker is away."""

    def __init__(self, settings: KafkaSettings, hooks: Hooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._topics = topics_of(settings)
        self._lock = threading.Lock()  # guards the fields below; never held while a future is settled
        self._state = State.OPENING
        self._line: Line | None = None
        self._waiting: deque[Pending] = deque()
        self._buffered_bytes = 0
        self._partitions = 0
        self._answered_s = float("-inf")
        self._told_up: bool | None = None
        self._tried = threading.Event()
        self._renew = threading.Event()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="triage-log-keeper", daemon=True)
        self._clock = threading.Thread(target=self._watch, name="triage-log-clock", daemon=True)
        self._keeper.start()
        self._clock.start()

    @property
    def partitions(self) -> int:
        """The one partition count of every topic. Raises PeerAway while the broker has never answered."""
        if not self._partitions:
            self._tried.wait(FIRST_ANSWER_S)
        if not self._partitions:
            raise PeerAway(PEER, "the broker has never answered")
        return self._partitions

    def append(self, entry: Entry) -> "Future[Place]":
        """Returns at once. The future yields the place, or fails with a PeerError within ``ack_timeout_s``.

        Its callbacks run in the client's threads: they may append, but must not wait.
        """
        pending = Pending(entry.size_bytes, time.monotonic() + self._settings.ack_timeout_s, entry)
        line = None
        with self._lock:
            problem = self._objection(entry)
            if problem is None:
                self._buffered_bytes += pending.size_bytes
                line = self._line
                if line is None:
                    self._waiting.append(pending)
        if problem is not None:
            pending.fail(problem)
        elif line is not None:
            line.send(pending)
        return pending.future

    def up(self) -> bool:
        """Whether the broker answered within SILENT_S."""
        return self._state is State.OPEN and time.monotonic() - self._answered_s < SILENT_S

    def wait_up(self, timeout_s: float) -> bool:
        """Waits for the broker, for commands that cannot do anything without it."""
        until_s = time.monotonic() + timeout_s
        while not self.up() and time.monotonic() < until_s:
            time.sleep(TICK_S / 2)
        return self.up()

    def close(self, timeout_s: float) -> None:
        """Takes no more, waits for what is in flight at most that long, fails the rest."""
        until_s = time.monotonic() + timeout_s
        while self._busy() and time.monotonic() < until_s:
            time.sleep(TICK_S / 10)
        with self._lock:
            self._state = State.CLOSED
        self._closing.set()
        self._renew.set()
        self._keeper.join(max(0.0, until_s - time.monotonic()) + DRAIN_S)
        self._refuse_waiting("the log is closed")

    def _busy(self) -> bool:
        with self._lock:
            return self._buffered_bytes > 0

    def _objection(self, entry: Entry) -> PeerError | None:
        """Why a record is not even tried; asked under the lock, in the order of the table."""
        if self._state is State.CLOSED:
            return PeerAway(PEER, "the log is closed")
        if entry.size_bytes > self._settings.max_record_bytes:
            return PeerRefused(PEER, f"{entry.size_bytes} bytes are more than max_record_bytes")
        if self._partitions and not 0 <= entry.partition < self._partitions:
            return PeerRefused(PEER, f"there is no partition {entry.partition}")
        if self._state is State.AWAY:
            return PeerAway(PEER, "the broker does not answer")
        if self._buffered_bytes + entry.size_bytes > self._settings.buffer_bytes:
            return PeerBusy(PEER, "the send buffer is over its high-water mark")
        return None

    # The keeper's thread: opens the line, replaces it.

    def _keep(self) -> None:
        while not self._closing.is_set():
            line = self._open()
            if line is None:
                self._closing.wait(RETRY_S)
                continue
            self._feed(line)
            self._renew.wait()
            with self._surviving("log keeper"):
                self._retire(line)

    def _open(self) -> Line | None:
        """A line whose topics exist and agree, or None; then what waited was told why."""
        try:
            create_missing(self._settings)
            line = Line(self._settings, Owner(self._released, self._answered, self._broken))
        except (PeerError, SettingsError) as problem:
            self._lost(problem)
        except Exception as problem:  # noqa: BLE001  # a fault of the client we do not know must not end the keeper
            self._fault("log keeper")
            self._lost(problem)
        else:
            return self._agreed(line)
        return None

    def _agreed(self, line: Line) -> Line | None:
        try:
            self._agree(one_count({topic: line.partitions(topic) for topic in self._topics.all}))
        except (PeerError, SettingsError) as problem:
            line.drop()
            self._lost(problem)
            return None
        self._answered()
        return line

    def _agree(self, count: int) -> None:
        """A changed count would put a study's records in two places; on an emptied memory-only broker none are left."""
        if self._partitions not in (0, count) and not self._settings.memory_only:
            raise SettingsError(
                f"The topics had {self._partitions} partitions and now have {count}: studies would move."
            )
        self._partitions = count

    def _lost(self, problem: Exception) -> None:
        why = problem.detail if isinstance(problem, PeerError) else str(problem)
        with self._lock:
            if self._state is State.OPENING:
                self._state = State.AWAY
        self._tried.set()
        self._refuse_waiting(why)
        self._tell(up=False)

    def _feed(self, line: Line) -> None:
        """What waited goes first, in order; only then is the line open to all."""
        self._renew.clear()
        while True:
            with self._lock:
                batch = list(self._waiting)
                self._waiting.clear()
                if not batch:
                    self._line = line
                    self._state = State.CLOSED if self._closing.is_set() else State.OPEN
                    break
            for pending in batch:
                line.send(pending)
        if self._closing.is_set():
            self._renew.set()
        self._tried.set()
        self._tell(up=True)

    def _retire(self, line: Line) -> None:
        with self._lock:
            self._line = None
            if self._state is State.OPEN:
                self._state = State.OPENING
        until_s = time.monotonic() + DRAIN_S
        while line.waiting() and time.monotonic() < until_s:
            time.sleep(TICK_S / 5)
        line.drop()

    def _refuse_waiting(self, why: str) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, deque()
            self._buffered_bytes -= sum(pending.size_bytes for pending in waiting)
        for pending in waiting:
            pending.fail(PeerAway(PEER, why))

    # The clock's thread: deadlines and signs of life.

    def _watch(self) -> None:
        asked_s = float("-inf")
        while not self._closing.wait(TICK_S):
            now_s = time.monotonic()
            line = self._line
            with self._surviving("log clock"):
                self._expire(now_s)
                if line is not None and now_s - asked_s >= SIGN_OF_LIFE_S:
                    asked_s = now_s
                    self._examine(line)

    def _expire(self, now_s: float) -> None:
        line, up = self._line, self.up()
        late = line.overdue(now_s) if line is not None else []
        with self._lock:
            while self._waiting and self._waiting[0].deadline_s <= now_s:
                late.append(self._waiting.popleft())
                self._buffered_bytes -= late[-1].size_bytes
        for pending in late:
            too_late(pending, up=up)
        if late and line is not None:
            self._broken(line)

    def _examine(self, line: Line) -> None:
        up = self.up()
        self._tell(up=up)
        if not line.knows(self._topics.all) or (not up and not line.waiting()):
            self._broken(line)  # a memory-only broker restarted, or nothing is lost by starting afresh
            return
        line.ask()

    def _tell(self, *, up: bool) -> None:
        if up is not self._told_up:
            self._told_up = up
            self._hooks.happened(Happening.PEER_UP, float(up), peer=PEER)

    @contextmanager
    def _surviving(self, where: str) -> Iterator[None]:
        """The log is of no use without its threads: an unexpected error is told and they go on."""
        try:
            yield
        except Exception:  # noqa: BLE001  # as said
            self._fault(where)

    def _fault(self, where: str) -> None:
        self._hooks.happened(Happening.FAULT, where=where)

    # What a line reports, from any thread.

    def _released(self, size_bytes: int) -> None:
        with self._lock:
            self._buffered_bytes -= size_bytes

    def _answered(self) -> None:
        self._answered_s = time.monotonic()

    def _broken(self, line: Line) -> None:
        if line is self._line:
            self._renew.set()
