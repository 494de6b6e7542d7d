"""Which slices the service takes for surely of a head, and which for blank: as `worker/scoring/content.py` does. Pure.

Rooms do not import each other; a test holds both against each other on the same slices. Rays go out from the middle of
the body; in a head nearly every ray ends in skull, close below the skin, and most of the inside has brain's density.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.integer[Any]] | NDArray[np.floating[Any]]  # (H, W), in HU
RAYS, STEP_MM, REACH_MM = 64, 1.5, 160.0
BODY_HU, BONE_HU, BRAIN_HU = -300.0, 250.0, (-5.0, 90.0)
LEAST_CONTRAST_HU, EVERY = 50.0, 2  # below it nothing is shown; rows and columns that are looked at
COARSE_MM = 3.0
RADIUS_MM, SCALP_MM = (18.0, 125.0), 30.0
RINGED, BRAIN = 0.85, 0.6  # of a slice that surely is of a head


def blank(hu: Pixels) -> bool:
    """Whether a slice (H, W) shows nothing."""
    some = hu[::EVERY, ::EVERY].astype(np.float64)
    return float(some.max() - some.min()) < LEAST_CONTRAST_HU


def surely_head(hu: Pixels, spacing_mm: tuple[float, float]) -> bool:
    """Whether the brain mask need not be asked if a slice (H, W) holds brain."""
    ringed, brain = likeness(hu, spacing_mm)
    return ringed >= RINGED and brain >= BRAIN


def likeness(hu: Pixels, spacing_mm: tuple[float, float]) -> tuple[float, float]:
    """Share of rays that end in skull; share of the inside (by area) that has brain's density."""
    steps = [max(1, round(COARSE_MM / mm)) for mm in spacing_mm]
    body = np.argwhere(hu[:: steps[0], :: steps[1]] > BODY_HU)
    if not len(body):
        return 0.0, 0.0
    values = _along_rays(hu, spacing_mm, body.mean(0) * steps)
    bone_at, skin_at = _last(values > BONE_HU), _last(values > BODY_HU)
    ring = (bone_at * STEP_MM >= RADIUS_MM[0]) & (bone_at * STEP_MM <= RADIUS_MM[1])
    ring &= (skin_at - bone_at) * STEP_MM <= SCALP_MM
    along = np.arange(values.shape[1])[None, :]
    weight = along * ((along < bone_at[:, None]) & ring[:, None] & (values < BONE_HU))  # rings grow with the radius
    brain = (values >= BRAIN_HU[0]) & (values <= BRAIN_HU[1])
    return float(ring.mean()), float((weight * brain).sum() / max(weight.sum(), 1))


def _along_rays(hu: Pixels, spacing_mm: tuple[float, float], centre: NDArray[np.float64]) -> NDArray[np.float32]:
    """(rays, samples) in HU; air beyond the image."""
    angles = np.linspace(0.0, 2.0 * np.pi, RAYS, endpoint=False)[:, None]
    along_mm = np.arange(0.0, REACH_MM, STEP_MM)[None, :]
    row = np.rint(centre[0] + np.sin(angles) * along_mm / spacing_mm[0]).astype(np.intp)
    column = np.rint(centre[1] + np.cos(angles) * along_mm / spacing_mm[1]).astype(np.intp)
    within = (row >= 0) & (row < hu.shape[0]) & (column >= 0) & (column < hu.shape[1])
    values = np.full(row.shape, -1000.0, np.float32)
    values[within] = hu[row[within], column[within]]
    return values


def _last(hit: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the last hit on each ray; 0 where there is none."""
    last = hit.shape[1] - 1 - np.argmax(hit[:, ::-1], axis=1)
    return np.where(hit.any(axis=1), last, 0)
