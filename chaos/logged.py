"""What the log itself holds of a run: the keys of ``study.events`` and the entries of ``study.audit``. Pure."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

ARRIVED = "arrived"
OUTCOMES = ("scored", "not_analysed")


@dataclass(frozen=True, slots=True)
class EventKey:
    """The key of one image's event (contracts/events.py): compaction keeps one record of each."""

    study_instance_uid: str
    kind: str
    sop_instance_uid: str
    pixel_digest: str
    rest: tuple[str, ...]  # frame, model, version

    @classmethod
    def of(cls, key: bytes) -> Self | None:
        """None for the key of an event that is not of one image."""
        study, kind, *parts = key.decode().split("|")
        if kind == ARRIVED:
            sop, digest = parts
            return cls(study, kind, sop, digest, ())
        if kind in OUTCOMES:
            sop, frame, digest, *model = parts
            return cls(study, kind, sop, digest, (frame, *model))
        return None


@dataclass(frozen=True, slots=True)
class Audited:
    """One entry of the audit trail. It may be there twice, with the same offset (worker/flagging/audit_out)."""

    study_instance_uid: str
    offset: int
    change: str

    @classmethod
    def of(cls, value: bytes) -> Self:
        """From a record's value."""
        told = json.loads(value)
        return cls(told["study_instance_uid"], told["offset"], told["change"])


@dataclass(frozen=True, slots=True)
class LogTold:
    """Different keys and entries, each once."""

    keys: frozenset[EventKey]
    audit: frozenset[Audited]

    @classmethod
    def of(cls, keys: Iterable[bytes], audit: Iterable[bytes]) -> Self:
        """From keys of ``study.events`` and values of ``study.audit``."""
        found = (EventKey.of(key) for key in keys)
        return cls(frozenset(key for key in found if key), frozenset(map(Audited.of, audit)))
