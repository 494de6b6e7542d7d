"""Does a slice show anything? And, where no tag names a body part: does it look like a head? Pure, and cheap.

Rays are sent out from the middle of the body. In a head nearly every ray ends in skull, a finger's breadth below the
skin, at a head's radius, and most of what lies inside the skull has the density of brain. In a chest, an abdomen or a
neck bone lies on few rays, deep or far out, and fat or air fills the inside. The bounds are generous: a wrong *no*
costs a score (the image is told as not analysed), so they only turn away what is plainly something else.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.scoring.hounsfield import Hounsfield

_RAYS = 64
_STEP_MM = 1.5
_REACH_MM = 160.0  # farther out than any scalp from the middle of a head
_BODY_HU = -300.0
_BONE_HU = 250.0  # a thin skull vault at 5 mm slice thickness is partial volume
_BRAIN_HU = (-5.0, 90.0)  # water to fresh blood, with noise
_LEAST_CONTRAST_HU = 50.0  # between the darkest and the brightest pixel: air and any body differ by hundreds
_EVERY = 2  # rows and columns that are looked at for that
_COARSE_MM = 3.0  # the middle of the body needs no finer samples


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """What a slice of a head keeps to. Lengths in mm, the rest fractions."""

    skull_radius_mm: tuple[float, float] = (18.0, 125.0)  # from near the vertex to the longest adult head
    scalp_mm: float = 30.0  # skin to skull, swelling and hair wraps included
    ringed: float = 0.5  # of the rays end in skull within those two; face and mouth slices fall below
    brain: float = 0.45  # of the inside has the density of brain


LIMITS = HeadLimits()
# Hardly anything else has so closed a ring around so much brain: slices through chin and neck come up to 0.7 and 0.5.
SURELY = HeadLimits(ringed=0.85, brain=0.6)


@dataclass(frozen=True, slots=True)
class HeadLikeness:
    """``ringed``: fraction of rays that end in skull; ``brain``: fraction of brain density inside that ring."""

    ringed: float
    brain: float

    def is_head(self, limits: HeadLimits = LIMITS) -> bool:
        """Whether both fractions are high enough."""
        return self.ringed >= limits.ringed and self.brain >= limits.brain


NO_HEAD = HeadLikeness(0.0, 0.0)


def shows_nothing(hu: Hounsfield) -> bool:
    """Whether a slice (rows, columns) in HU is blank: a failed detector, a lost rescale, a page of padding."""
    some = hu[::_EVERY, ::_EVERY]
    return float(some.max()) - float(some.min()) < _LEAST_CONTRAST_HU


def head_likeness(hu: Hounsfield, spacing_mm: tuple[float, float], limits: HeadLimits = LIMITS) -> HeadLikeness:
    """How much a slice (rows, columns) in HU looks like a head. ``spacing_mm``: (row, column)."""
    centre = _middle_of_body(hu, spacing_mm)
    if centre is None:
        return NO_HEAD
    rays = _rays(hu, spacing_mm, centre)
    bone_at, skin_at = _outermost(rays > _BONE_HU), _outermost(rays > _BODY_HU)
    radius_mm, scalp_mm = bone_at * _STEP_MM, (skin_at - bone_at) * _STEP_MM
    low, high = limits.skull_radius_mm
    ring = (radius_mm >= low) & (radius_mm <= high) & (scalp_mm <= limits.scalp_mm)
    return HeadLikeness(float(ring.mean()), _brain_inside(rays, bone_at, ring))


def _middle_of_body(hu: Hounsfield, spacing_mm: tuple[float, float]) -> tuple[float, float] | None:
    """Centroid (row, column) of what is denser than air, headrest included: that moves it by a few mm at most."""
    steps = [max(1, round(_COARSE_MM / spacing)) for spacing in spacing_mm]
    body = hu[:: steps[0], :: steps[1]] > _BODY_HU
    total = int(body.sum())
    if not total:
        return None
    rows, columns = (body.sum(axis=axis) @ np.arange(size) for axis, size in ((1, body.shape[0]), (0, body.shape[1])))
    return float(rows / total * steps[0]), float(columns / total * steps[1])


def _rays(hu: Hounsfield, spacing_mm: tuple[float, float], centre: tuple[float, float]) -> NDArray[np.float32]:
    """HU along each ray, (rays, samples), from the middle outwards; air beyond the image."""
    angles = np.linspace(0.0, 2.0 * np.pi, _RAYS, endpoint=False)[:, None]
    along = np.arange(0.0, _REACH_MM, _STEP_MM)[None, :]
    row = np.rint(centre[0] + np.sin(angles) * along / spacing_mm[0]).astype(np.intp)
    column = np.rint(centre[1] + np.cos(angles) * along / spacing_mm[1]).astype(np.intp)
    inside = (row >= 0) & (row < hu.shape[0]) & (column >= 0) & (column < hu.shape[1])
    values = np.full(row.shape, -1000.0, dtype=np.float32)
    values[inside] = hu[row[inside], column[inside]]
    return values


def _outermost(hit: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the last hit on each ray; 0 where there is none."""
    last = hit.shape[1] - 1 - np.argmax(hit[:, ::-1], axis=1)
    return np.where(hit.any(axis=1), last, 0)


def _brain_inside(rays: NDArray[np.float32], bone_at: NDArray[np.intp], ring: NDArray[np.bool_]) -> float:
    """Area-weighted: samples on a ray stand for rings that grow with the radius."""
    along = np.arange(rays.shape[1])[None, :]
    inside = (along < bone_at[:, None]) & ring[:, None] & (rays < _BONE_HU)
    weights = (inside * along).astype(np.float64)
    brain = (rays >= _BRAIN_HU[0]) & (rays <= _BRAIN_HU[1])
    total = weights.sum()
    return float((weights * brain).sum() / total) if total else 0.0
