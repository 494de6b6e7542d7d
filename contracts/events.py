"""Study events: the truth (design decision 3). One compacted topic, one partition a study, JSON values.

Keys name study, kind, instance, frame, pixel digest, model and version, so that compaction keeps one of each and a
second delivery replaces the first. An event's order is its offset; its broker time is the record's timestamp.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from contracts.errors import DecodeError
from contracts.findings import (
    EpochS,
    FrameCount,
    Frozen,
    Label,
    Measure,
    Patient,
    PositionMm,
    Probability,
    ThicknessMm,
)
from contracts.names import Lane
from contracts.reasons import Reason

# PS3.5 9.1, less its rule on leading zeros. It becomes part of keys, partitions and names in Redis: nothing else may.
StudyUid = Annotated[str, Field(pattern=r"^[0-9.]{1,64}$")]


class _Event(Frozen):
    schema_version: Literal[1] = 1
    study_instance_uid: StudyUid
    at: EpochS  # by the writer's clock: for people; order is the offset

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
    frames: FrameCount = 1
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
    frame: FrameCount = 0
    frames: FrameCount = 1
    model: str
    model_version: str
    measures: dict[Label, Measure]
    position_mm: PositionMm
    thickness_mm: ThicknessMm
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
    frame: FrameCount | None = None
    frames: FrameCount = 1
    reason: Reason
    scan: ScanPlace | None = None

    def _key_parts(self) -> tuple[str, ...]:
        frame = "" if self.frame is None else str(self.frame)
        if self.reason is Reason.RECORD_LOST:  # a timer's: compaction must not let it take the place of scoring's word
            frame = self.reason.value
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


class Lost(Frozen):
    """Scoring: scans left a topic before they were scored (design decision 4). Speaks for a partition, not for a study.

    Of the scans of ``lane`` in this partition, those appended before the record that is now the first one are gone:
    images that arrived ``before`` that, less a margin, and are not settled are settled by flagging as RECORD_LOST.
    Image events of their studies say so; this one changes no study by itself. Offsets: ``first`` is the first one that
    is gone, ``upto`` the first one that is still there.
    """

    schema_version: Literal[1] = 1
    kind: Literal["lost"] = "lost"
    lane: Lane
    topic: str
    partition: Annotated[int, Field(ge=0)]
    first: Annotated[int, Field(ge=0)]
    upto: Annotated[int, Field(ge=0)]
    before: EpochS | None = None  # epoch seconds by broker append time; None: nothing is left, so this event's own
    at: EpochS  # by the writer's clock: for people

    @property
    def key(self) -> bytes:
        """Names no study: the newest of a partition says all that an older one said."""
        return f"|{self.kind}|{self.topic}|{self.partition}".encode()


StudyEvent: TypeAlias = Annotated[Arrived | Scored | NotAnalysed | Closed | Expired, Field(discriminator="kind")]
AnyEvent: TypeAlias = StudyEvent | Lost
_STUDY: TypeAdapter[StudyEvent] = TypeAdapter(StudyEvent)
_ANY: TypeAdapter[AnyEvent] = TypeAdapter(
    Annotated[Arrived | Scored | NotAnalysed | Closed | Expired | Lost, Field(discriminator="kind")]
)


def encode(event: AnyEvent) -> bytes:
    """The record value."""
    return event.model_dump_json().encode()


def decode(value: bytes) -> StudyEvent:
    """Raises DecodeError, carrying the bytes, on anything but an event of a study of this schema."""
    try:
        return _STUDY.validate_json(value)
    except ValidationError as problem:
        raise _unreadable(value, problem) from None


def decode_any(value: bytes) -> AnyEvent:
    """As ``decode``, but takes what speaks for a partition too."""
    try:
        return _ANY.validate_json(value)
    except ValidationError as problem:
        raise _unreadable(value, problem) from None


def _unreadable(value: bytes, problem: ValidationError) -> DecodeError:
    kinds = ", ".join(sorted({error["type"] for error in problem.errors()}))
    return DecodeError(f"study event: {kinds}", value)
