"""Where the served grid lies on a slice: what the graph does inside, told from outside. Pure.

The graph centres its grid on the patient (training's ServedGrid); a mask that comes out of it is laid back onto the
slice's own pixels here, where truth is known. A test holds both against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.measure import Numbers

BODY_FROM_HU, BODY_FULL_HU = -500.0, -300.0  # what counts as patient
FARTHEST_MM = 60.0  # a centroid farther from the image centre is not trusted
MARKED_FROM = 0.5  # of a segmentation sample, as scoring takes it


@dataclass(frozen=True)
class Grid:
    """`size` samples of `pitch_mm` a side."""

    size: int
    pitch_mm: float


def centres_mm(hu: NDArray[np.generic], spacing_mm: tuple[float, float]) -> Numbers:
    """(n, 2) row and column of the grid's centre, in mm from the first pixel's centre, of slices (n, H, W)."""
    body = np.clip((hu.astype(np.float32) - BODY_FROM_HU) / (BODY_FULL_HU - BODY_FROM_HU), 0, 1)
    return np.stack([_centre(body.mean(2), spacing_mm[0]), _centre(body.mean(1), spacing_mm[1])], 1)


def _centre(profile: NDArray[np.float32], spacing_mm: float) -> Numbers:
    at_mm = np.arange(profile.shape[1]) * spacing_mm
    middle = at_mm[-1] / 2
    centroid = (profile @ at_mm + 1e-3 * middle) / (profile.sum(1) + 1e-3)
    return np.asarray(middle + np.clip(centroid - middle, -FARTHEST_MM, FARTHEST_MM), np.float64)


def on_slice(
    values: NDArray[np.float32], grid: Grid, centre_mm: Numbers, spacing_mm: tuple[float, float], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Channels (c, S, S) of one slice, laid on its pixels (c, H, W) by linear interpolation; 0 outside the grid."""
    rows, columns = (_onto(grid, centre_mm[axis], spacing_mm[axis], shape[axis]) for axis in (0, 1))
    return np.asarray(rows @ values @ columns.T, np.float32)


def _onto(grid: Grid, centre_mm: float, spacing_mm: float, length: int) -> NDArray[np.float32]:
    """(length, S) weights."""
    at = (np.arange(length) * spacing_mm - centre_mm) / grid.pitch_mm + (grid.size - 1) / 2
    away = np.abs(at[:, None] - np.arange(grid.size)[None, :])
    return np.asarray(np.clip(1 - away, 0, None), np.float32)


def packed(marked: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Channels (c, H, W) as bits of one picture (H, W): bit c is channel c."""
    return np.packbits(marked, axis=0, bitorder="little")[0]


def measured(marked: NDArray[np.bool_], pitch_mm: tuple[float, float]) -> tuple[Numbers, Numbers]:
    """Areas in mm² (c,) and centroids in mm from the middle (c, 2), NaN where empty, of masks (c, H, W)."""
    rows, columns = marked.sum(2), marked.sum(1)
    count = rows.sum(1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        centroid = [
            (profile @ np.arange(profile.shape[1]) / count - (profile.shape[1] - 1) / 2) * pitch
            for profile, pitch in zip((rows, columns), pitch_mm, strict=True)
        ]
    return count * pitch_mm[0] * pitch_mm[1], np.stack(centroid, 1)
