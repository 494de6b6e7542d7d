"""What the log itself holds of a run: keys of ``study.events``, entries of ``study.audit``, dead letters. Pure."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

ARRIVED = "arrived"
OUTCOMES = ("scored", "not_analysed")

Headers = Sequence[tuple[str, bytes | None]]  # of a Kafka record


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
        """None for the key of an event that is not of one image, or of none of ours: poison lies there, too."""
        match key.decode("utf-8", "replace").split("|"):
            case [study, "arrived" as kind, sop, digest]:
                return cls(study, kind, sop, digest, ())
            case [study, ("scored" | "not_analysed") as kind, sop, frame, digest, *model]:
                return cls(study, kind, sop, digest, (frame, *model))
            case _:
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
class Letter:
    """One dead letter, by the headers of the scan that is in it (contracts/scans.py)."""

    study_instance_uid: str
    sop_instance_uid: str
    digest: str

    @classmethod
    def of(cls, headers: Headers) -> Self:
        """A header that is not there is empty: such a letter speaks for no image of ours."""
        told = {name: (value or b"").decode("utf-8", "replace") for name, value in headers}
        return cls(*(told.get(name, "") for name in ("study_instance_uid", "sop_instance_uid", "digest")))


@dataclass(frozen=True, slots=True)
class LogTold:
    """Different keys, entries and letters, each once."""

    keys: frozenset[EventKey]
    audit: frozenset[Audited]
    letters: frozenset[Letter]

    @classmethod
    def of(cls, keys: Iterable[bytes], audit: Iterable[bytes], letters: Iterable[Headers]) -> Self:
        """From keys of ``study.events``, values of ``study.audit`` and headers of ``scans.dead``."""
        found = (EventKey.of(key) for key in keys)
        return cls(
            frozenset(key for key in found if key),
            frozenset(map(Audited.of, audit)),
            frozenset(map(Letter.of, letters)),
        )
