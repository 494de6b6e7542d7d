"""What a reader makes of a study: the network and its baselines answer in one form, so that one code judges them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.study import COLUMNS, Study
from training.evaluation.measure import Numbers
from training.evaluation.verdict import SliceMeasures

LABELS = tuple(label.value for label in COLUMNS)
UNREACHED = 1.01  # an operating point for what a reader does not tell: no probability gets there


@dataclass(frozen=True, eq=False)
class Reading:
    """Slices of one study as one reader sees them.

    measures: probabilities, areas and centroids by slice and label; marks (n, H, W): bit c is KINDS[c], on the
    study's own pixels. refused (n,): the service would not analyse the slice; its measures and marks are empty.
    """

    measures: SliceMeasures
    marks: NDArray[np.uint8]
    refused: NDArray[np.bool_]


class Reader(Protocol):
    """The network, the HU threshold, BLAST-CT."""

    @property
    def name(self) -> str:
        """As the report tells it."""
        ...

    @property
    def thresholds(self) -> Mapping[str, float]:
        """Operating point of every label."""
        ...

    def read(self, study: Study) -> Reading:
        """Every slice."""
        ...


def positions_of(study: Study) -> tuple[Numbers, Numbers]:
    """Position and thickness in mm of every slice: the thickness told, else the distance of slices."""
    thickness_mm = study.facts.slice_mm or study.spacing_mm[0]
    return study.z_mm.astype(np.float64), np.full(len(study.z_mm), float(thickness_mm))


def limits(thresholds: Mapping[str, float]) -> Numbers:
    """Operating points in the labels' order."""
    return np.array([thresholds.get(label, UNREACHED) for label in LABELS])
