"""Which lesions a reader could see; what differs too little from the brain around it teaches but doubt. Pure."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from training.slices_out import SliceTable

AROUND = 6  # samples about a lesion that it is compared with
BRAIN_HU = (0.0, 60.0)
BONE_HU = 110.0  # a layer's samples from here on are half bone
FEWEST = 20  # samples to judge by


def contrast_hu(hu: NDArray[np.int16], mask: NDArray[np.bool_]) -> float:
    """Median density of the lesion (H, W) less that of the brain around it; 0 where there is too little to judge by."""
    core = hu[mask & (hu < BONE_HU)]
    ring = ndimage.binary_dilation(mask, iterations=AROUND) & ~mask & (hu > BRAIN_HU[0]) & (hu < BRAIN_HU[1])
    if min(len(core), int(ring.sum())) < FEWEST:
        return 0.0
    return float(np.median(core) - np.median(hu[ring]))


def visible(table: SliceTable, least_hu: float) -> SliceTable:
    """Without the slices whose lesions, taken together, differ by less than `least_hu` from the brain around them."""
    marks = table.bits > 0
    sick = table.labels[:, 0] == 1
    seen = [not s or abs(contrast_hu(hu, m)) >= least_hu for hu, m, s in zip(table.hu, marks, sick, strict=True)]
    return dataclasses.replace(table, **{f.name: getattr(table, f.name)[seen] for f in dataclasses.fields(table)})
