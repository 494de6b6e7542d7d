"""What the fold keeps in Redis beside what readers see, so that a study not in memory can be taken up again. Pure."""

from pydantic import Field

from contracts.findings import Frozen, Label, Measure, Patient
from contracts.names import Lane
from contracts.reasons import Reason
from worker.flagging.verdict import Slice

NEVER = -1  # an offset before the first


class Score(Frozen):
    """One frame's score by one model and version."""

    series_instance_uid: str
    orientation: str
    position_mm: float
    thickness_mm: float
    model: str
    version: str
    measures: dict[Label, Measure]

    @property
    def preference(self) -> tuple[int, str, str]:
        """Of several models and versions the newest version counts, then the name: the same whatever came first."""
        number = int(self.version) if self.version.isdecimal() else NEVER
        return (number, self.version, self.model)

    def slice_of(self, sop_instance_uid: str) -> Slice:
        """What the verdict looks at."""
        return Slice(
            sop_instance_uid,
            self.series_instance_uid,
            self.orientation,
            self.position_mm,
            self.thickness_mm,
            self.measures,
        )


class FrameFold(Frozen):
    """What became of one frame: exactly one of the two, and the offset of the event that said so."""

    offset: int
    score: Score | None = None
    reason: Reason | None = None

    def yields_to(self, other: "FrameFold") -> bool:
        """Whether ``other`` takes this one's place: a score beats a reason, a newer model an older one.

        Between two events of one record key the log decides, as compaction does: the later offset.
        """
        if self.score is None or other.score is None:
            return other.score is not None or (self.score is None and other.offset > self.offset)
        mine, theirs = self.score.preference, other.score.preference
        return theirs > mine or (theirs == mine and other.offset > self.offset)

    def same_content(self, other: "FrameFold") -> bool:
        """Whether the two differ in their offset alone."""
        return self.score == other.score and self.reason == other.reason


class Heading(Frozen):
    """What a study's images say of the study. The earliest image's word counts."""

    at: float
    image: str
    patient: Patient = Patient()
    accession_number: str = ""
    study_description: str = ""
    modality: str = ""
    source: str = ""


class StudyFold(Frozen):
    """A study's own part of the fold. Offsets are the partition's; times are epoch seconds by the broker."""

    epoch: int = 0  # which log the offsets belong to; see PartitionFold
    offset: int = NEVER  # of the last event applied
    last_image_offset: int = NEVER  # of the last image event that changed anything
    last_arrival_offset: int = NEVER  # of the last new image
    last_arrival_at: float = 0.0
    arrived_at: float | None = None  # earliest arrival told by an Arrived event
    implied_at: float | None = None  # earliest append time of an image without one
    closed_after: int | None = None  # the accepted Closed event's fence
    closed_at: float = 0.0
    expired: bool = False
    flagged_at: float | None = None
    lane: Lane = Lane.ROUTINE
    heading: Heading | None = None
    patient_ids: tuple[str, ...] = Field((), repr=False)  # two at most: more than one is all that is asked
    images: int = 0  # how many rows, and
    frames: int = 0  # how many frames are stored beside this: with fewer it is not to be trusted
    unreadable: tuple[str, ...] = ()  # hex of the keys of events that could not be read

    def in_new_log(self, epoch: int) -> "StudyFold":
        """The same study after the broker lost its log: offsets start again, what is known stays."""
        closed = self.closed_after is not None and self.closed_after >= self.last_arrival_offset
        fresh = {"offset": NEVER, "last_image_offset": NEVER, "last_arrival_offset": NEVER}
        return self.model_copy(update={**fresh, "epoch": epoch, "closed_after": NEVER if closed else None})
