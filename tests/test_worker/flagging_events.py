"""Study events for the tests of flagging: short to write, complete as scoring and producer send them."""

from collections.abc import Iterable, Sequence

from contracts.events import Arrived, NotAnalysed, Scored, StudyEvent
from contracts.findings import Label, Measure, Patient
from contracts.reasons import Reason
from worker.flagging.study import Logged

STUDY = "1.2.826.0.1.1"
START_S = 1_800_000_000.0
SECOND_S = 1.0
QUIET = 0.05  # a probability of a slice that shows nothing
LOUD = 0.8  # positive, not certain
CERTAIN = 0.99


def arrived(
    image: int, series: str = "1", pixels: str = "a", study: str = STUDY, frames: int = 1, patient_id: str = "4711"
) -> StudyEvent:
    """An image's arrival; every image was received a second after the one before."""
    return Arrived(
        study_instance_uid=study,
        at=START_S + image * SECOND_S,
        series_instance_uid=f"{study}.{series}",
        sop_instance_uid=f"{study}.{series}.{image}",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        pixel_digest=f"{pixels}{image}",
        digest=f"d{pixels}{image}",
        frames=frames,
        patient=Patient(name="Doe^Jane", patient_id=patient_id),
        accession_number="A1",
        modality="CT",
        source="SCANNER",
    )


def measures(
    probability: float, label: Label = Label.INTRAPARENCHYMAL, area_mm2: float = 200.0
) -> dict[Label, Measure]:
    """One kind and the overall answer, at the same probability; an operating point of 0.5."""
    area = area_mm2 if probability >= 0.5 else 0.0
    kind = Measure(probability=probability, threshold=0.5, area_mm2=area, centroid_mm=(10.0, 20.0) if area else None)
    return {Label.ANY: kind, label: kind}


def scored(  # noqa: PLR0913 - every part of a score that a test may want to differ
    image: int,
    probability: float = QUIET,
    *,
    series: str = "1",
    pixels: str = "a",
    study: str = STUDY,
    frame: int = 0,
    frames: int = 1,
    version: str = "1",
    spacing_mm: float = 5.0,
    thickness_mm: float = 5.0,
    of: dict[Label, Measure] | None = None,
) -> StudyEvent:
    """A slice's scores, ``spacing_mm`` beside the one before it."""
    return Scored(
        study_instance_uid=study,
        at=START_S + image * SECOND_S + 0.5,
        series_instance_uid=f"{study}.{series}",
        sop_instance_uid=f"{study}.{series}.{image}",
        pixel_digest=f"{pixels}{image}",
        frame=frame,
        frames=frames,
        model="head_ct_lesion",
        model_version=version,
        measures=of or measures(probability),
        position_mm=(image + frame) * spacing_mm,
        thickness_mm=thickness_mm,
    )


def not_analysed(image: int, reason: Reason, *, series: str = "1", pixels: str = "a", study: str = STUDY) -> StudyEvent:
    """An image without a score."""
    return NotAnalysed(
        study_instance_uid=study,
        at=START_S + image * SECOND_S + 0.5,
        series_instance_uid=f"{study}.{series}",
        sop_instance_uid=f"{study}.{series}.{image}",
        pixel_digest=f"{pixels}{image}",
        reason=reason,
    )


def logged(events: Iterable[StudyEvent], start: int = 0) -> Sequence[Logged]:
    """The events one after the other in a log, a tenth of a second apart."""
    return [Logged(event, start + place, START_S + (start + place) / 10) for place, event in enumerate(events)]
