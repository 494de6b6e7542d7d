"""Storage commitment (PS3.4 Annex J), pure: what was asked, what is known of each instance, and what is answered.

An instance is committed when it is durable by our own rule (design decision 4): this process saw scan and ``arrived``
acknowledged, or the log has ``arrived`` and an outcome that names where the scan lies. ``arrived`` alone is not proof:
a store that failed can leave it behind. What has left the log is no longer kept, so it is no longer committed.

========================  =====================  ==========================================================
what is known             FailureReason          meaning (PS3.3 C.14.1.1)
========================  =====================  ==========================================================
durable, same SOP class   none                   committed: it lies on the log
never arrived, or gone    0x0112                 no such object instance
another SOP class         0x0119                 class / instance conflict
arrived, outcome unknown  0x0110, after a wait   processing failure: not proven durable; send it again
========================  =====================  ==========================================================
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from contracts.errors import DecodeError

SCHEMA = 1
ADDRESS = "address"  # record header: where the request came from, for whoever holds it after us
RETRY_FIRST_S = 2.0  # a peer that was just busy is asked again soon
RETRY_LONGEST_S = 300.0  # a peer that comes back has its reports within five minutes


class FailureReason(IntEnum):
    """FailureReason (0008,1197) of a referenced instance."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_INSTANCE = 0x0112
    CLASS_CONFLICT = 0x0119


@dataclass(frozen=True, slots=True)
class Reference:
    """One instance that a commitment is asked for."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Request:
    """One transaction, as it lies on the topic ``commitments``. ``at``: epoch seconds, for people. No patient data."""

    calling_ae: str
    transaction_uid: str
    references: tuple[Reference, ...]
    at: float

    @property
    def key(self) -> bytes:
        """The record key: a TransactionUID is unique for its requestor (PS3.4 J.3.2.1.1.2)."""
        return f"{self.calling_ae}|{self.transaction_uid}".encode()

    def encode(self) -> bytes:
        """JSON; a class is written once, and each instance names it by number."""
        classes = {uid: number for number, uid in enumerate(dict.fromkeys(r.sop_class_uid for r in self.references))}
        told = {
            "schema": SCHEMA,
            "calling_ae": self.calling_ae,
            "transaction_uid": self.transaction_uid,
            "at": self.at,
            "classes": list(classes),
            "instances": [[classes[r.sop_class_uid], r.sop_instance_uid] for r in self.references],
        }
        return json.dumps(told, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, value: bytes) -> Self:
        """Raises DecodeError on anything but a request of this schema."""
        try:
            return cls._of(json.loads(value))
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as problem:
            raise DecodeError(f"commitment request: {type(problem).__name__}", value) from None

    @classmethod
    def _of(cls, told: Mapping[str, Any]) -> Self:
        if told["schema"] != SCHEMA:
            raise ValueError("unknown schema")
        references = tuple(Reference(str(told["classes"][number]), str(uid)) for number, uid in told["instances"])
        return cls(str(told["calling_ae"]), str(told["transaction_uid"]), references, float(told["at"]))


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an instance (the same UID with other pixels is another) that the index has heard of.

    ``sop_class_uid`` is empty where only its outcome is known; ``durable``: proven to lie on the log now.
    """

    sop_class_uid: str
    durable: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one request as of now. ``unsure``: how many of the failed ones may yet be proven durable."""

    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, FailureReason], ...]
    unsure: int


def decide(references: Sequence[Reference], known: Mapping[str, Sequence[Version]]) -> Verdict:
    """``known``: versions by SOP Instance UID; those that left the log are not among them."""
    judged = [(reference, _failure(reference, known.get(reference.sop_instance_uid, ()))) for reference in references]
    return Verdict(
        committed=tuple(reference for reference, failure in judged if failure is None),
        failed=tuple((reference, failure) for reference, failure in judged if failure is not None),
        unsure=sum(failure is FailureReason.PROCESSING_FAILURE for _, failure in judged),
    )


def _failure(reference: Reference, versions: Sequence[Version]) -> FailureReason | None:
    """Every version must be durable: the requestor may mean any of them, and may delete what we commit to."""
    if not versions:
        return FailureReason.NO_SUCH_INSTANCE
    if any(version.sop_class_uid not in ("", reference.sop_class_uid) for version in versions):
        return FailureReason.CLASS_CONFLICT
    if not all(version.durable for version in versions):
        return FailureReason.PROCESSING_FAILURE
    return None


def retry_after_s(attempts: int) -> float:
    """How long to wait after that many attempts that did not get through; doubles up to RETRY_LONGEST_S."""
    doublings = min(max(attempts - 1, 0), 16)  # beyond that it is the longest anyway
    return min(RETRY_FIRST_S * 2.0**doublings, RETRY_LONGEST_S)
