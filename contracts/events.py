"""Study events: the truth (design decision 3). One compacted topic, one partition a study, JSON values.

Keys name study, kind, instance, frame, pixel digest, model and version, so that compaction keeps one of each and a
second delivery replaces the first. An event's order is its offset; its broker time is the record's timestamp.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from contracts.errors import DecodeError
from contracts.findings import Frozen, Label, Measure, Patient, Probability
from contracts.names import Lane
from contracts.reasons import Reason


class _Event(Frozen):
    schema_version: Literal[1] = 1
    study_instance_uid: str
    at: float  # epoch seconds by the writer's clock: for people; order is the offset

    @property
    def key(self) -> bytes:
        """The record key, under which compaction keeps the newest."""
        return "|".join((self.study_instance_uid, *self._key_parts())).encode()

    def _key_parts(self) -> tuple[str, ...]:
        raise NotImplementedError


class _ImageEvent(_Event):
    series_instance_uid: str
    sop_instance_uid: str
    pixel_digest: str
    traceparent: str = ""

    @property
    def image(self) -> tuple[str, str]:
        """The image's identity: a resend with coerced patient attributes is the same image."""
        return (self.sop_instance_uid, self.pixel_digest)


class Arrived(_ImageEvent):
    """Producer: an image was acknowledged to its sender (or will be, once this event is durable)."""

    kind: Literal["arrived"] = "arrived"
    sop_class_uid: str
    digest: str
    frames: int = 1
    lane: Lane = Lane.ROUTINE
    source: str = ""
    patient: Patient = Patient()
    accession_number: str = Field("", repr=False)  # a repr ends up in logs
    study_description: str = Field("", repr=False)
    modality: str = ""

    def _key_parts(self) -> tuple[str, ...]:
        return (self.kind, self.sop_instance_uid, self.pixel_digest)


class ScanPlace(Frozen):
    """Where the scan record lies, so that a picture can be rendered from it again."""

    topic: str
    partition: int
    offset: int


class Scored(_ImageEvent):
    """Scoring: one frame's scores. ``frame`` is 0-based. Positions are along the slice normal (PS3.3 C.7.6.2.1.1)."""

    kind: Literal["scored"] = "scored"
    frame: int = 0
    frames: int = 1
    model: str
    model_version: str
    measures: dict[Label, Measure]
    position_mm: float
    thickness_mm: Annotated[float, Field(gt=0.0)]
    orientation: str = "axial"  # slices of a series agree only within one orientation
    scan: ScanPlace | None = None

    def _key_parts(self) -> tuple[str, ...]:
        names = (self.kind, self.sop_instance_uid, str(self.frame), self.pixel_digest)
        return (*names, self.model, self.model_version)

    @property
    def probability(self) -> Probability:
        """The model's overall answer."""
        return self.measures[Label.ANY].probability


class NotAnalysed(_ImageEvent):
    """Scoring: why an image has no score. ``frame`` None speaks for the whole instance."""

    kind: Literal["not_analysed"] = "not_analysed"
    frame: int | None = None
    frames: int = 1
    reason: Reason
    scan: ScanPlace | None = None

    def _key_parts(self) -> tuple[str, ...]:
        frame = "" if self.frame is None else str(self.frame)
        return (self.kind, self.sop_instance_uid, frame, self.pixel_digest)


class Closed(_Event):
    """Timer: all that arrived was settled and none came for the quiet period.

    ``after_offset`` is the offset of the study's last image event that the timer had seen: if the study has a later
    one, the fold ignores this event, so a zombie's timer cannot close a study over an image it never saw.
    """

    kind: Literal["closed"] = "closed"
    after_offset: int

    def _key_parts(self) -> tuple[str, ...]:
        return (self.kind,)


class Expired(_Event):
    """Timer: the deadline passed with images unsettled. Fenced by ``after_offset`` like Closed."""

    kind: Literal["expired"] = "expired"
    after_offset: int

    def _key_parts(self) -> tuple[str, ...]:
        return (self.kind,)


StudyEvent: TypeAlias = Annotated[Arrived | Scored | NotAnalysed | Closed | Expired, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[StudyEvent] = TypeAdapter(StudyEvent)


def encode(event: StudyEvent) -> bytes:
    """The record value."""
    return event.model_dump_json().encode()


def decode(value: bytes) -> StudyEvent:
    """Raises DecodeError, carrying the bytes, on anything but an event of this schema."""
    try:
        return _ADAPTER.validate_json(value)
    except ValidationError as problem:
        kinds = ", ".join(sorted({error["type"] for error in problem.errors()}))
        raise DecodeError(f"study event: {kinds}", value) from None
