"""The scan record: one DICOM instance on ``scans.stat`` or ``scans.routine`` (design decision 2).

Value: the Part 10 bytes as received, or empty where ``claim`` says where the payload lies (claim check).
Key: StudyInstanceUID. Headers: below; never patient data.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, TypeAdapter

from contracts.errors import DecodeError
from contracts.findings import EpochS, FrameCount
from contracts.names import Lane

SCHEMA = 1
_STUDY = re.compile(r"[0-9.]{1,64}")  # as in contracts/events.py: it becomes part of keys, partitions and names


# As in the events that are made of them: a header beyond these would give an image that no event could speak of.
_BOUNDS: dict[str, TypeAdapter[Any]] = {
    "received_at": TypeAdapter(EpochS),
    "size_bytes": TypeAdapter(NonNegativeInt),
    "frames": TypeAdapter(Annotated[FrameCount, Field(ge=1)]),
}


@dataclass(frozen=True, slots=True)
class ScanHeaders:
    """What every reader may know of a scan without opening it.

    ``digest``: SHA-256 (hex) of the data set without preamble and File Meta. ``pixel_digest``: SHA-256 of pixels and
    geometry; with the SOP Instance UID it is the image's identity. ``received_at``: epoch seconds.
    ``frames``: NumberOfFrames, 1 where absent. ``traceparent``: W3C trace context.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    digest: str
    pixel_digest: str
    source: str
    received_at: float
    traceparent: str
    size_bytes: int
    frames: int = 1
    lane: Lane = Lane.ROUTINE
    claim: str = ""

    def encode(self) -> list[tuple[str, bytes]]:
        """Kafka headers, schema version first."""
        pairs = [("schema", str(SCHEMA).encode())]
        return pairs + [(name, str(value).encode()) for name, value in asdict(self).items()]

    @classmethod
    def decode(cls, headers: Sequence[tuple[str, bytes]]) -> Self:
        """Raises DecodeError (carrying the raw headers) on an unknown schema or a missing or wrong header."""
        raw = {name: value or b"" for name, value in headers}
        try:
            values: dict[str, Any] = _typed(raw)
            return cls(**values)
        except (KeyError, ValueError) as problem:
            raise DecodeError(f"scan headers: {problem!r}", repr(raw).encode()) from problem


def _typed(raw: Mapping[str, bytes]) -> dict[str, object]:
    if int(raw["schema"]) != SCHEMA:
        raise ValueError(f"schema {raw['schema']!r} is not {SCHEMA}")
    if not _STUDY.fullmatch(raw["study_instance_uid"].decode()):
        raise ValueError("study_instance_uid is no UID")
    read = {float: float, int: int, str: str, Lane: Lane}
    values = {f.name: read[f.type](raw[f.name].decode()) for f in fields(ScanHeaders)}  # type: ignore[index]
    return values | {name: check.validate_python(values[name]) for name, check in _BOUNDS.items()}


@dataclass(frozen=True, slots=True)
class Scan:
    """Headers and payload: ``payload`` is empty exactly when ``headers.claim`` is set."""

    headers: ScanHeaders
    payload: bytes = field(repr=False)  # patient data


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int
