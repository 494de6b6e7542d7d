"""One study by one reader, against what is known of it. Pure: pixels go in, a few numbers a study come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.study import GRAZED, KINDS, UNNAMED_BIT, Facts, Study
from training.evaluation.measure import Numbers, dice
from training.evaluation.reading import LABELS, Reading, limits
from training.evaluation.verdict import ML_PER_MM3, study_score

ALL_NEIGHBOURS = np.ones((3, 3, 3), bool)  # corners touch: a thin crescent is one lesion
SMALLEST_ML = 0.05  # what is smaller is the raggedness of a mask's border, not a lesion of its own
FOUND_SHARE = 0.1  # of a lesion's volume that must be marked, on slices at the operating point
KIND_NAMES = {nth: kind.value for nth, kind in enumerate(KINDS)} | {UNNAMED_BIT: "unnamed"}


@dataclass(frozen=True, eq=False)
class Lesion:
    """One 3D-connected lesion of one kind. slices: which rows it lies on; voxels: its flat indices in the study."""

    kind: str
    volume_ml: float
    density_hu: float
    voxels: NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Case:
    """A study without its pixels: what is true of it. labels (n, 6): 0, 1, GRAZED, NaN where not said."""

    uid: str
    patient: str
    sick: bool | None
    labels: NDArray[np.float32]
    lesions: tuple[Lesion, ...]
    facts: Facts
    spacing_mm: tuple[float, float, float]
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of lesion present, each once."""
        return tuple(dict.fromkeys(lesion.kind for lesion in self.lesions))


@dataclass(frozen=True, eq=False)
class Judged:
    """One reader's word on one case. dice: None where no mask or no lesion is known.

    marked_ml: for each of the case's lesions, how much of it is marked on each slice (n,). areas_mm2, outside_mm2: all
    that is marked on each slice (n,), inside the head and beyond it. refused (n,): not analysed, so never raised.
    """

    case: Case
    probabilities: Numbers
    score: float
    dice: float | None
    marked_ml: tuple[Numbers, ...]
    areas_mm2: Numbers
    outside_mm2: Numbers
    refused: NDArray[np.bool_]

    def flagged(self, threshold: float) -> bool:
        """At this operating point of *any*."""
        return self.score >= threshold

    def found(self, threshold: float) -> tuple[bool, ...]:
        """Each lesion: whether FOUND_SHARE of it is marked on slices that speak."""
        speaks = self.probabilities[:, 0] >= threshold
        pairs = zip(self.marked_ml, self.case.lesions, strict=True)
        return tuple(bool(ml[speaks].sum() >= FOUND_SHARE * lesion.volume_ml) for ml, lesion in pairs)


def case_of(study: Study, tags: Mapping[str, str] | None = None) -> Case:
    """The truth, as far as it is known."""
    return Case(
        uid=study.uid,
        patient=study.patient,
        sick=study.truth.any,
        labels=slice_labels(study),
        lesions=lesions_of(study),
        facts=study.facts,
        spacing_mm=study.spacing_mm,
        tags=tags or {},
    )


def slice_labels(study: Study) -> NDArray[np.float32]:
    """(n, 6): what is said by slice, else what follows: clean is clean everywhere, a lone slice is the study."""
    if study.truth.by_slice is not None:
        return study.truth.by_slice
    labels = np.full((len(study.hu), len(LABELS)), np.nan, np.float32)
    if study.truth.masks is not None:
        labels[:, 0] = np.where((study.truth.masks > 0).any((1, 2)), 1, 0)
    elif study.truth.any is False:
        labels[:] = 0
    elif study.truth.any and len(study.hu) == 1:
        labels[:, 0] = 1
    return labels


def lesions_of(study: Study) -> tuple[Lesion, ...]:
    """Every 3D-connected lesion of each kind, from the masks; none where there are no masks."""
    masks = study.truth.masks
    if masks is None:
        return ()
    voxel_ml = float(np.prod(study.spacing_mm)) * ML_PER_MM3
    found = []
    for bit, kind in KIND_NAMES.items():
        marked = (masks >> bit) & 1
        if marked.any():
            parts, _ = ndimage.label(marked, ALL_NEIGHBOURS)
            found += _lesions(parts, kind, study.hu, voxel_ml)
    return tuple(found)


def _lesions(parts: NDArray[np.int32], kind: str, hu: NDArray[np.int16], voxel_ml: float) -> list[Lesion]:
    where = np.flatnonzero(parts)
    names = parts.ravel()[where]
    order = np.argsort(names, kind="stable")
    borders = np.flatnonzero(np.diff(names[order])) + 1
    groups = np.split(where[order], borders)
    large = (voxels for voxels in groups if len(voxels) * voxel_ml >= SMALLEST_ML)
    return [Lesion(kind, len(v) * voxel_ml, float(hu.ravel()[v].mean()), v) for v in large]


def judged(case: Case, study: Study, reading: Reading, thresholds: Mapping[str, float]) -> Judged:
    """The reader's word beside the truth."""
    truth = study.truth.masks
    overlap = None
    if truth is not None and truth.any():
        overlap = dice(reading.marks > 0, truth > 0)
    return Judged(
        case=case,
        probabilities=reading.measures.probabilities,
        score=study_score(reading.measures.of(~reading.refused), limits(thresholds)),
        dice=overlap,
        marked_ml=tuple(_marked_ml(lesion, study, reading.marks) for lesion in case.lesions),
        areas_mm2=reading.measures.areas_mm2[:, 0],
        outside_mm2=reading.measures.outside_mm2[:, 0],
        refused=reading.refused,
    )


def _marked_ml(lesion: Lesion, study: Study, marks: NDArray[np.uint8]) -> Numbers:
    hit = lesion.voxels[marks.ravel()[lesion.voxels] > 0]
    per_slice = np.bincount(hit // marks[0].size, minlength=len(marks))
    return per_slice * (float(np.prod(study.spacing_mm)) * ML_PER_MM3)


def without_voxels(case: Case) -> Case:
    """The same case, light enough to keep hundreds of."""
    empty = np.empty(0, np.intp)
    lesions = tuple(Lesion(one.kind, one.volume_ml, one.density_hu, empty) for one in case.lesions)
    return Case(case.uid, case.patient, case.sick, case.labels, lesions, case.facts, case.spacing_mm, case.tags)


def asked(labels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Slices that are asked for *any*: said, and not only grazed."""
    return ~np.isnan(labels[:, 0]) & (labels[:, 0] != GRAZED)
