"""What a network must beat: an HU threshold inside the skull, and connected components."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BONE_FROM_HU = 250.0
BLOOD_TO_HU = 95.0  # denser is bone or calcium
RIM_MM = 3.0  # the inner table's partial volume is kept away from
SMOOTH_MM = 1.2  # noise is averaged away first


def blood_area_mm2(hu: NDArray[np.float32], pitch_mm: float, blood_from_hu: float) -> float:
    """Area of the largest connected region of blood density inside the skull of one slice (H, W), in mm²."""
    cavity = ndimage.binary_fill_holes(hu > BONE_FROM_HU) & (hu < BONE_FROM_HU)
    inside = ndimage.distance_transform_edt(cavity) * pitch_mm > RIM_MM
    smooth = ndimage.gaussian_filter(hu, SMOOTH_MM / pitch_mm)
    parts, count = ndimage.label(inside & (smooth >= blood_from_hu) & (smooth <= BLOOD_TO_HU))
    return float(np.bincount(parts.ravel())[1:].max() * pitch_mm**2) if count else 0.0


def blood_areas_mm2(hu: NDArray[np.int16], pitch_mm: NDArray[np.float32], blood_from_hu: float) -> NDArray[np.float64]:
    """The score of every slice (n, H, W)."""
    return np.array(
        [blood_area_mm2(s.astype(np.float32), float(p), blood_from_hu) for s, p in zip(hu, pitch_mm, strict=True)]
    )
