"""One head, one scanner, some table positions: slices in HU, their true masks and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.phantom.anatomy import paint_head
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import CHANNELS, Lesion, paint_lesions
from training.phantom.plan import HeadPlan
from training.phantom.scanner import Scanner, scan
from training.phantom.space import Field, View, sample_space

PLANE_MM = 1.7  # planes within a slab lie at most this far apart
LABELS = ("any", *CHANNELS)
SEEN_FROM_MM2 = 40.0  # a lesion with less area in a slice is neither asked for nor counted against
TABLE_MM = 0.5  # a slab's mean depth may lie this far in the inner table where the vault slopes
BELOW_MM, ABOVE_MM = -88.0, 92.0  # the table positions a head scan may cover


@dataclass(frozen=True)
class Slices:
    """Rendered slices. hu: (n, H, W) float32; masks: (n, 5, H, W) bool; labels: (n, 6) of 0, 1 or 0.5.

    A label of 0.5 means the lesion only grazes the slice (less than SEEN_FROM_MM2): such a slice is left out of
    training and of the evaluation of that label.
    """

    hu: Field
    masks: NDArray[np.bool_]
    labels: Field
    inside: NDArray[np.bool_]  # within the inner table


def render(  # noqa: PLR0913  # head, lesions, scanner, table and matrix are independent
    atlas: Atlas,
    plan: HeadPlan,
    lesions: tuple[Lesion, ...],
    scanner: Scanner,
    slab_centres_mm: Sequence[float],
    *,
    shape: tuple[int, int],
    pitch_mm: float,
    noisy: bool = True,
) -> Slices:
    """Render the slabs centred on the given z (mm, scanner coordinates)."""
    per_slab = max(1, round(scanner.slab_mm / PLANE_MM))
    offsets = (np.arange(per_slab) - (per_slab - 1) / 2) * scanner.slab_mm / per_slab
    planes = tuple(float(z + o) for z in slab_centres_mm for o in offsets)
    pushes = [lesion.push for lesion in lesions if lesion.push is not None]
    space = sample_space(atlas, plan.shape, View(shape, pitch_mm, planes), plan.seed, pushes)
    picture = paint_head(plan, space)
    masks = paint_lesions(plan, lesions, space, picture)
    slabs = (len(slab_centres_mm), per_slab, *shape)
    depth = space.depth.reshape(slabs).mean(1)
    hu = scan(scanner, picture.reshape(slabs).mean(1), depth, pitch_mm, plan.seed, noisy=noisy)
    seen = masks.reshape(len(CHANNELS), *slabs).mean(2) > 0.45  # a lesion in half of the slab is in the slice
    inside = depth > -TABLE_MM
    truth = np.moveaxis(seen & inside, 0, 1)
    return Slices(hu, truth, labels_of(truth, pitch_mm), inside)


def labels_of(masks: NDArray[np.bool_], pitch_mm: float) -> Field:
    """(n, 6) labels from (n, 5, H, W) masks: 1 present, 0 absent, 0.5 too little to ask for."""
    area_mm2 = masks.sum((2, 3)) * pitch_mm**2
    each = np.where(area_mm2 >= SEEN_FROM_MM2, 1.0, np.where(area_mm2 > 0, 0.5, 0.0))
    return np.concatenate([each.max(1, keepdims=True), each], 1).astype(np.float32)


def bleed_extent(lesions: tuple[Lesion, ...]) -> tuple[float, float]:
    """Table positions (low, high) in mm that the first lesion roughly covers."""
    lesion = lesions[0]
    half = {"epidural": lesion.radius_mm[1], "intraventricular": 22.0}.get(lesion.kind, lesion.radius_mm[2])
    centre = {"intraventricular": 14.0, "falcine_subdural": 40.0}.get(lesion.kind, lesion.centre_mm[2])
    return centre - half, centre + half
