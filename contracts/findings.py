"""What a model looks for, how urgent it is, and what a study's assessment says."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SMALLEST_TOLD_ML = 0.1  # what one digit after the point can tell
Probability = Annotated[float, Field(ge=0.0, le=1.0)]

# Beyond these a number is no measurement of a patient but a fault or an attack: whoever rounds, adds or multiplies
# what lies within them cannot overflow.
FARTHEST_MM = 10_000.0  # a place, from the origin of the frame of reference: scanners are some metres long
THICKEST_MM = 1_000.0  # a slice or slab
LARGEST_MM2 = 10_000_000.0  # an area in one image: 3 m × 3 m
MOST_FRAMES = 1_000_000  # of one instance; the door takes far fewer
LATEST_S = 253_402_300_799.0  # epoch seconds: the last that a calendar of four digits can tell
PositionMm = Annotated[float, Field(ge=-FARTHEST_MM, le=FARTHEST_MM)]
ThicknessMm = Annotated[float, Field(gt=0.0, le=THICKEST_MM)]
AreaMm2 = Annotated[float, Field(ge=0.0, le=LARGEST_MM2)]
FrameCount = Annotated[int, Field(ge=0, le=MOST_FRAMES)]
EpochS = Annotated[float, Field(ge=0.0, le=LATEST_S)]


class Frozen(BaseModel):
    """Values that travel between rooms: immutable, closed (an unknown field is an error), numbers finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Label(StrEnum):
    """What a model can find. ``ANY`` is the model's own overall answer, not a finding of its own."""

    ANY = "any"
    INTRAPARENCHYMAL = "intraparenchymal"
    SUBDURAL_EPIDURAL = "subdural_epidural"
    SUBARACHNOID = "subarachnoid"
    INTRAVENTRICULAR = "intraventricular"
    MASS = "mass"
    LESION = "lesion"  # a study where ANY is positive and agreed, but no single kind is


class Urgency(StrEnum):
    """Urgency classes; rank and due time follow from them (design decision 7)."""

    CRITICAL = "critical"
    URGENT = "urgent"
    ROUTINE = "routine"


URGENCY_OF: dict[Label, Urgency] = {
    Label.ANY: Urgency.URGENT,
    Label.INTRAPARENCHYMAL: Urgency.CRITICAL,
    Label.SUBDURAL_EPIDURAL: Urgency.CRITICAL,
    Label.SUBARACHNOID: Urgency.CRITICAL,
    Label.INTRAVENTRICULAR: Urgency.CRITICAL,
    Label.MASS: Urgency.URGENT,
    Label.LESION: Urgency.CRITICAL,
}


class StudyState(StrEnum):
    """What the service can say of a study. Flagged wins over not analysed, which wins over not flagged."""

    RECEIVING = "receiving"
    FLAGGED = "flagged"
    NOT_FLAGGED = "not_flagged"
    NOT_ANALYSED = "not_analysed"


class ReadingState(StrEnum):
    """Where the study is with the people who read it."""

    UNCLAIMED = "unclaimed"
    CLAIMED = "claimed"
    ACKNOWLEDGED = "acknowledged"
    ESCALATED = "escalated"
    READ = "read"


class ImageOutcome(StrEnum):
    """What became of one image; absent while it waits."""

    SCORED = "scored"
    EXCLUDED = "excluded"
    NOT_ANALYSED = "not_analysed"


class Measure(Frozen):
    """One label in one image: the model's probability, its operating point, extent on the served grid.

    ``area_mm2`` lies inside the organ where the organ was asked for; ``outside_mm2`` was marked too and lies beyond it.
    """

    probability: Probability
    threshold: Probability
    area_mm2: AreaMm2 = 0.0
    outside_mm2: AreaMm2 = 0.0
    centroid_mm: tuple[PositionMm, PositionMm] | None = None  # (row, column) from the image centre

    @property
    def positive(self) -> bool:
        """At or above the model's operating point."""
        return self.probability >= self.threshold


class Finding(Frozen):
    """One finding of a study: the highest agreed probability, volume in ml, key images by area."""

    name: Label
    probability: Probability
    volume_ml: Annotated[float, Field(ge=0.0)]
    sop_instance_uids: tuple[str, ...]


def volume_words(volume_ml: float) -> str:
    """A volume for a person's eyes: a segmentation that marked nothing has no size, not the size zero."""
    if volume_ml == 0.0:
        return "size unknown"
    return f"{volume_ml:.1f} ml" if volume_ml >= SMALLEST_TOLD_ML else f"< {SMALLEST_TOLD_ML} ml"


class Patient(Frozen):
    """Patient data: in record values and Redis values only (design decision 11)."""

    name: str = ""
    patient_id: str = ""
    issuer: str = ""
    birth_date: str = ""
    sex: str = ""

    def __repr__(self) -> str:
        """Never the content: a repr ends up in logs."""
        return "Patient(…)"

    __str__ = __repr__
