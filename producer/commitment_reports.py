"""Reports that are owed are worked off: one attempt after another, each with what is known at its moment.

An attempt
  1. too old: given up, and told
  2. what is known of each instance, from an index that is read to its end; the broker away: later
  3. some may yet be proven durable, and the wait is not over: later
  4. over the association that the request came on, while it is open; else over a new one to the address of the peer
  5. the peer answered Success: a tombstone, acknowledged, ends the transaction
At least once: a crash between 4 and 5 makes a second report of the same TransactionUID.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contracts.errors import DecodeError, PeerAway, PeerError, PeerRefused, PeerTimeout
from contracts.hooks import Happening, Hooks
from producer.commitment import Request, Verdict, Version, decide, retry_after_s
from producer.commitment_desk import Desk, Pending
from producer.commitment_set import event_information

WORKERS = 4  # peers spoken to at once
IDLE_S = 0.1  # how late a report that is due is seen
UNSURE_S = 1.0  # between two looks at what is not yet proven
KNOWN_S = 5.0  # longest wait for the index; then others have their turn
PEER = "commitment requestor"
NO_ADDRESS = "no address of the requestor in producer.commitment_peers"

Information = Callable[[bool], tuple[int, bytes]]


class Known(Protocol):
    """The index of what is durable."""

    def known(self, instances: Iterable[str], timeout_s: float) -> Mapping[str, Sequence[Version]]:
        """Versions by SOP Instance UID. Raises PeerError."""


class Append(Protocol):
    """Writes to ``commitments``."""

    def to(self, partition: int, key: bytes, value: bytes | None) -> None:
        """Returns once the record is durable; ``value`` None is a tombstone. Raises PeerError."""


class Calls(Protocol):
    """The way over a new association."""

    def report(self, title: str, address: str, information: Information) -> None:
        """Returns once the peer answered Success. Raises PeerError."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``peers``: AE title → host:port. ``wait_s``: for proof. ``retry_s``: then a report is given up."""

    peers: Mapping[str, str]
    wait_s: float
    retry_s: float

    def address(self, title: str) -> str | None:
        """Of that AE title; else of one that differs in case alone, which is all that an environment variable tells."""
        folded = (where for peer, where in self.peers.items() if peer.casefold() == title.casefold())
        return self.peers.get(title) or next(folded, None)


class Reports:
    """Works in threads of its own between ``start`` and ``stop``. ``epoch_s`` is the clock of ``Pending.since_s``."""

    def __init__(
        self,
        desk: Desk,
        index: Known,
        calls: Calls,
        append: Append,
        rules: Rules,
        hooks: Hooks,
        epoch_s: Callable[[], float],
    ) -> None:
        self._desk, self._index, self._calls, self._append = desk, index, calls, append
        self._rules, self._hooks, self._epoch_s = rules, hooks, epoch_s

    def run(self, stop: threading.Event) -> None:
        """One worker, until stopped; what it has begun it ends."""
        while not stop.is_set():
            pending = self._desk.take()
            if pending is None:
                stop.wait(IDLE_S)
                continue
            try:
                self._attempt(pending)
            except Exception:  # noqa: BLE001 - one report must not end the others; it is told and tried again
                self._hooks.happened(Happening.FAULT, where="commitment report")
                self._put_off(pending, "fault")

    def owed(self) -> str:
        """What is to be said about reports that do not get through; empty where there is nothing."""
        waiting = Counter(why for why in self._desk.owed() if why)
        return "; ".join(f"{count} reports wait: {why}" for why, count in sorted(waiting.items()))

    def tell(self) -> None:
        """The gauge."""
        self._hooks.happened(Happening.COMMITMENT_PENDING, float(len(self._desk.owed())))

    def _attempt(self, pending: Pending) -> None:
        try:
            request = Request.decode(pending.value)
        except DecodeError:
            self._hooks.happened(Happening.FAULT, where="commitment record")
            self._end_of(pending, "unreadable")
            return
        age_s = self._epoch_s() - pending.since_s
        if not pending.outcome and age_s > self._rules.retry_s:
            self._hooks.happened(Happening.COMMITMENT_UNDELIVERED, why="given_up")
            pending.outcome = "given_up"
        if not pending.outcome:
            self._report(pending, request, age_s)
        if pending.outcome:
            self._end_of(pending, pending.outcome)

    def _report(self, pending: Pending, request: Request, age_s: float) -> None:
        try:
            verdict = self._verdict(request)
        except PeerError as problem:
            self._desk.later(pending, UNSURE_S, str(problem))
            return
        if verdict.unsure and age_s < self._rules.wait_s:
            self._desk.later(pending, UNSURE_S)
            return
        try:
            self._deliver(pending, request, verdict)
        except PeerError as problem:
            self._hooks.happened(Happening.COMMITMENT_UNDELIVERED, why=_why(problem))
            self._put_off(pending, problem.detail or _why(problem))
            return
        pending.outcome = "failures" if verdict.failed else "committed"

    def _verdict(self, request: Request) -> Verdict:
        known = self._index.known((reference.sop_instance_uid for reference in request.references), KNOWN_S)
        return decide(request.references, known)

    def _deliver(self, pending: Pending, request: Request, verdict: Verdict) -> None:
        """Returns once the peer answered Success. Raises PeerError: the last way's."""

        def information(implicit: bool) -> tuple[int, bytes]:  # noqa: FBT001 - a question of one letter
            return event_information(request.transaction_uid, verdict, implicit=implicit)

        route, address = self._desk.route(pending), self._rules.address(request.calling_ae)
        if route is None and address is None:
            raise NoAddress(PEER, NO_ADDRESS)
        if route is not None:
            try:
                return route.report(information)
            except PeerError:
                if address is None:
                    raise
        return self._calls.report(request.calling_ae, str(address), information)

    def _end_of(self, pending: Pending, outcome: str) -> None:
        """A newer request of the same TransactionUID is owed a report of its own: its record stays."""
        pending.outcome = outcome
        if self._desk.current(pending):
            try:
                self._append.to(pending.partition, pending.key, None)
            except PeerError:
                self._put_off(pending, "the broker is away")
                return
        self._desk.done(pending)
        self._hooks.happened(Happening.COMMITMENT_REPORTED, outcome=outcome)

    def _put_off(self, pending: Pending, why: str) -> None:
        pending.attempts += 1
        self._desk.later(pending, retry_after_s(pending.attempts), why)


class NoAddress(PeerAway):
    """The requestor has gone, and no setting says where it lives."""


_WHY: tuple[tuple[type[PeerError], str], ...] = (
    (NoAddress, "no_address"),
    (PeerRefused, "refused"),
    (PeerTimeout, "no_answer"),
    (PeerError, "away"),
)


def _why(problem: PeerError) -> str:
    """A word of a closed list: it becomes a metric label."""
    return next(word for kind, word in _WHY if isinstance(problem, kind))
