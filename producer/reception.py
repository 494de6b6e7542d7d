"""What every door does with one object, once: intake, duplicate, payload, publish, remember, answer."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from contracts.errors import PeerBusy, PeerError, Rejected
from contracts.hooks import Happening, Hooks, Stage
from contracts.names import Lane
from contracts.reasons import Reason
from producer.caps import DEFAULT, Caps
from producer.intake import Accepted, Received, examine, identity
from producer.lanes import Lanes
from producer.memory import Acknowledged, Budget, Loan
from producer.preamble import program
from producer.statuses import TEMPORARY


class Publisher(Protocol):
    """Appends scan and ``arrived``; returns once both are durable. Raises PeerError."""

    def publish(self, accepted: Accepted, payload: bytes) -> None:
        """``payload`` is empty where ``accepted.headers.claim`` is set."""


class Store(Protocol):
    """Claim check. Raises PeerError."""

    def put(self, part10: bytes) -> str:
        """The URL it can be read from, once it is durable."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``inline_bytes``: larger objects go to the store. ``largest_bytes``: larger ones are refused.

    ``budget``: what inflated objects take; the doors share it.
    """

    inline_bytes: int
    largest_bytes: int
    caps: Caps = DEFAULT
    budget: Budget = field(default_factory=lambda: Budget(DEFAULT.inflated_bytes))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one object: stored where ``reason`` is None. ``detail`` never carries patient data."""

    reason: Reason | None = None
    detail: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    duplicate: bool = False
    whole: bool = True

    @property
    def stored(self) -> bool:
        """Durable, so the sender may forget it."""
        return self.reason is None

    @property
    def temporary(self) -> bool:
        """Not the object's fault: the same bytes may be taken later."""
        return self.reason in TEMPORARY


class Reception:
    """The one intake of all doors. Thread-safe; ``take`` blocks until the broker has answered."""

    def __init__(
        self,
        lanes: Lanes,
        limits: Limits,
        publisher: Publisher,
        store: Store | None,
        memory: Acknowledged,
        hooks: Hooks,
        clock: Callable[[], float],
    ) -> None:
        self._lanes, self.limits, self._memory = lanes, limits, memory
        self._publisher, self._store = publisher, store
        self._hooks, self._clock = hooks, clock

    def take(self, received: Received, *, may_grow: bool = False) -> Outcome:
        """Stores one object and says what became of it. Success means durable (design decision 4).

        ``may_grow``: a folder cannot tell a broken file from one that is still growing. An object whose pixel data
        ends early is then unparsable, not taken as it is; and unparsable is a wait, which is not counted as refused.
        """
        with self._hooks.stage(Stage.RECEIVE, received.traceparent):
            try:
                return self._told(received, self._examined(received, may_grow=may_grow))
            except Rejected as refusal:
                if may_grow and refusal.reason is Reason.UNPARSABLE:
                    return Outcome(refusal.reason, refusal.detail)
                return self.refuse(received, refusal.reason, refusal.detail)

    def refuse(self, received: Received, reason: Reason, detail: str = "") -> Outcome:
        """Counts a refused object, also one that a door could not even take in whole."""
        happened, trace = self._hooks.happened, received.traceparent
        happened(Happening.REFUSED, traceparent=trace, door=received.door.value, reason=reason.value)
        sop_class, sop_instance = identity(received.part10)
        return Outcome(reason, detail, received.sop_class_uid or sop_class, received.sop_instance_uid or sop_instance)

    def _examined(self, received: Received, *, may_grow: bool) -> Accepted:
        if len(received.part10) > self.limits.largest_bytes:
            raise Rejected(Reason.TOO_LARGE)
        self._look_for_program(received)
        with self._hooks.stage(Stage.INTAKE, received.traceparent), Loan(self.limits.budget) as loan:
            accepted = examine(received, self._lanes, self.limits.caps, loan.take)
        if may_grow and not accepted.whole:
            raise Rejected(Reason.UNPARSABLE, "pixel data missing or cut short")
        return accepted

    def _look_for_program(self, received: Received) -> None:
        kind = program(received.part10)
        if kind:
            happened, trace = self._hooks.happened, received.traceparent
            happened(Happening.EXECUTABLE, traceparent=trace, door=received.door.value, kind=kind)

    def _told(self, received: Received, accepted: Accepted) -> Outcome:
        """1. A duplicate is told so. 2. Payload. 3. Both records. 4. Remember. 5. Success."""
        if self._memory.knows(accepted.headers, self._clock()):
            self._hooks.happened(Happening.DUPLICATE, traceparent=received.traceparent, room="producer")
            return replace(_stored(accepted), duplicate=True)
        ready, payload = self._with_claim(accepted, received.part10)
        self._publish(ready, payload)
        self._memory.remember(accepted.headers, self._clock())
        self._count(received, accepted.headers.lane)
        return _stored(accepted)

    def _with_claim(self, accepted: Accepted, part10: bytes) -> tuple[Accepted, bytes]:
        if len(part10) <= self.limits.inline_bytes:
            return accepted, part10
        if self._store is None:
            raise Rejected(Reason.TOO_LARGE, "no payload store")
        with self._hooks.stage(Stage.STORE_PAYLOAD, accepted.headers.traceparent):
            try:
                claim = self._store.put(part10)
            except PeerError as problem:
                raise Rejected(Reason.STORE_AWAY, type(problem).__name__) from problem
        return replace(accepted, headers=replace(accepted.headers, claim=claim)), b""

    def _publish(self, accepted: Accepted, payload: bytes) -> None:
        with self._hooks.stage(Stage.PUBLISH, accepted.headers.traceparent):
            try:
                self._publisher.publish(accepted, payload)
            except PeerBusy as problem:
                raise Rejected(Reason.BUFFER_FULL) from problem
            except PeerError as problem:  # away, late, or refusing: nothing is wrong with the object
                raise Rejected(Reason.BROKER_AWAY, type(problem).__name__) from problem

    def _count(self, received: Received, lane: Lane) -> None:
        happened, trace = self._hooks.happened, received.traceparent
        happened(Happening.RECEIVED, traceparent=trace, door=received.door.value, lane=lane.value)


def _stored(accepted: Accepted) -> Outcome:
    headers = accepted.headers
    uids = (headers.sop_class_uid, headers.sop_instance_uid, headers.study_instance_uid)
    return Outcome(None, "", *uids, whole=accepted.whole)
