"""What a model looks for, how urgent it is, and what a study's assessment says."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

SMALLEST_TOLD_ML = 0.1  # what one digit after the point can tell
Probability = Annotated[float, Field(ge=0.0, le=1.0)]


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
    area_mm2: Annotated[float, Field(ge=0.0)] = 0.0
    outside_mm2: Annotated[float, Field(ge=0.0)] = 0.0
    centroid_mm: tuple[float, float] | None = None  # (row, column) from the image centre

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
