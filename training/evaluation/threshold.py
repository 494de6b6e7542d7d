"""What a network must beat: an HU threshold inside the skull, and connected components."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.data.study import UNNAMED_BIT, Study
from training.evaluation.grid import measured
from training.evaluation.reading import LABELS, Reading, positions_of
from training.evaluation.verdict import SliceMeasures

BONE_FROM_HU = 250.0
BLOOD_FROM_HU = 54.0  # what validation chose for the shipped model's report
BLOOD_TO_HU = 95.0  # denser is bone or calcium
RIM_MM = 3.0  # the inner table's partial volume is kept away from
SMOOTH_MM = 1.2  # noise is averaged away first
SEEN_FROM_MM2 = 40.0  # smaller regions are not marked: where the phantom begins to ask
HALF_MM2 = 100.0  # an area is told as area / (area + this): a number between 0 and 1 in the same order


def blood_regions(
    hu: NDArray[np.float32], pitch_mm: float, blood_from_hu: float
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Connected regions of blood density inside the skull of one slice (H, W): names 1…k, and areas in mm² (k,)."""
    cavity = ndimage.binary_fill_holes(hu > BONE_FROM_HU) & (hu < BONE_FROM_HU)
    inside = ndimage.distance_transform_edt(cavity) * pitch_mm > RIM_MM
    smooth = ndimage.gaussian_filter(hu, SMOOTH_MM / pitch_mm)
    parts, count = ndimage.label(inside & (smooth >= blood_from_hu) & (smooth <= BLOOD_TO_HU))
    return parts, np.bincount(parts.ravel(), minlength=count + 1)[1:] * pitch_mm**2


def blood_area_mm2(hu: NDArray[np.float32], pitch_mm: float, blood_from_hu: float) -> float:
    """Area of the largest connected region of blood density inside the skull of one slice (H, W), in mm²."""
    return float(blood_regions(hu, pitch_mm, blood_from_hu)[1].max(initial=0.0))


def blood_areas_mm2(hu: NDArray[np.int16], pitch_mm: NDArray[np.float32], blood_from_hu: float) -> NDArray[np.float64]:
    """The score of every slice (n, H, W)."""
    return np.array(
        [blood_area_mm2(s.astype(np.float32), float(p), blood_from_hu) for s, p in zip(hu, pitch_mm, strict=True)]
    )


@dataclass(frozen=True)
class HuThreshold:
    """The baseline as a reader: a slice's score is its largest region, its marks every region that is seen."""

    blood_from_hu: float = BLOOD_FROM_HU
    name: str = "HU threshold"
    thresholds: Mapping[str, float] = field(default_factory=lambda: {"any": 0.5})

    def read(self, study: Study) -> Reading:
        """Names no kind: only *any* is told, and every mark is of no said kind."""
        spacing_mm = (study.spacing_mm[1], study.spacing_mm[2])
        pitch_mm = float(np.sqrt(spacing_mm[0] * spacing_mm[1]))
        found = [self._slice(one.astype(np.float32), pitch_mm) for one in study.hu]
        largest = np.array([area for area, _ in found])
        return any_reading(study, largest / (largest + HALF_MM2), np.stack([marks for _, marks in found]), spacing_mm)

    def _slice(self, hu: NDArray[np.float32], pitch_mm: float) -> tuple[float, NDArray[np.bool_]]:
        parts, areas = blood_regions(hu, pitch_mm, self.blood_from_hu)
        seen = np.concatenate([[False], areas >= SEEN_FROM_MM2])
        return float(areas.max(initial=0.0)), seen[parts]


def any_reading(
    study: Study, score: NDArray[np.float64], marks: NDArray[np.bool_], spacing_mm: tuple[float, float]
) -> Reading:
    """A reading that tells *any* alone: scores 0…1 (n,) and marks (n, H, W)."""
    count = len(score)
    probabilities, areas = np.zeros((count, len(LABELS))), np.zeros((count, len(LABELS)))
    centroids = np.full((count, len(LABELS), 2), np.nan)
    probabilities[:, 0] = score
    for nth, one in enumerate(marks):
        areas[nth, :1], centroids[nth, :1] = measured(one[None], spacing_mm)
    measures = SliceMeasures(probabilities, areas, np.zeros_like(areas), centroids, *positions_of(study))
    return Reading(measures, marks * np.uint8(1 << UNNAMED_BIT), np.zeros(count, bool))
