"""What the service reads off a brain mask: whether there is brain at all, and which samples count. Pure.

Rooms do not import each other: this is `worker/scoring/inside.py` once more, held against it by a test.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

BRAIN_FROM = 0.5  # of a sample: more likely inside than not
HINT_FROM, HINT_MM2 = 0.2, 100.0  # so much of what might be brain is brain enough to go on
ROOM_MM = 6.0  # around the mask


def holds_brain(chance: NDArray[Any], pitch_mm: float) -> bool:
    """Of a mask (S, S): False only where hardly a sample might be brain."""
    return float((chance >= HINT_FROM).sum()) * pitch_mm**2 >= HINT_MM2


def roomy(chance: NDArray[Any], pitch_mm: float) -> NDArray[np.bool_]:
    """The mask and the room around it; all of it where no brain is seen, which takes nothing away."""
    mask = chance >= BRAIN_FROM
    if not mask.any():
        return np.ones(chance.shape, bool)
    away: NDArray[np.float64] = distance_transform_edt(~mask)
    return away <= ROOM_MM / pitch_mm


def on_grid(inside: NDArray[np.bool_], pitch_mm: float, size: int, grid_pitch_mm: float) -> NDArray[np.bool_]:
    """A mask (S, S) on another square grid about the same centre: the nearest sample."""
    away_mm = (np.arange(size) - (size - 1) / 2) * grid_pitch_mm
    at = np.rint(away_mm / pitch_mm + (len(inside) - 1) / 2).clip(0, len(inside) - 1).astype(np.intp)
    return inside[np.ix_(at, at)]
