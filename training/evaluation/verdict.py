"""What the service would say of a study, from its slices' measures: the rule of worker.flagging, for one series. Pure.

Rooms are not imported here; `tests/test_training/test_evaluation_verdict.py` holds this rule against theirs on random
series. Two uses: whether a study is flagged at the shipped operating points, and the highest operating point of *any*
at which it still would be, which is the study's score: one rule ranks and decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from contracts.settings import FlaggingSettings
from training.evaluation.measure import Numbers

SAME_PLACE_MM = 40.0  # as worker.flagging.chains
POSITION_GRID_MM = 0.1  # as there: slices closer than this are one position
SURE_SHARE = 0.75  # as worker.flagging.verdict: how sure a lone slice must be
TOUCH_MM = 1e-6
ML_PER_MM3 = 0.001
NEVER = -4.0  # below every score that some operating point could give


@dataclass(frozen=True)
class SliceMeasures:
    """What scoring measures on each slice of one series. Columns are the labels, the first of them *any*.

    probabilities, areas_mm2, outside_mm2 (n, L): marked inside the head, where the brain mask was asked, and beyond it;
    centroids_mm (n, L, 2), NaN where nothing is marked; position_mm, thickness_mm (n,) along the slice normal.
    """

    probabilities: Numbers
    areas_mm2: Numbers
    outside_mm2: Numbers
    centroids_mm: Numbers
    position_mm: Numbers
    thickness_mm: Numbers

    def of(self, rows: NDArray[np.bool_]) -> SliceMeasures:
        """These slices alone."""
        return SliceMeasures(**{name: values[rows] for name, values in vars(self).items()})


def is_flagged(slices: SliceMeasures, thresholds: Numbers, rules: FlaggingSettings | None = None) -> bool:
    """Whether a closed study of this one series is flagged at the operating points (L,)."""
    kept = rules or FlaggingSettings()
    return any(_speaks(slices, thresholds, nth, kept) for nth in range(slices.probabilities.shape[1]))


def study_score(slices: SliceMeasures, thresholds: Numbers, rules: FlaggingSettings | None = None) -> float:
    """The highest operating point of *any* at which the study is flagged, the other labels' points as they are.

    Flagging only grows as the point falls, so it is found by halving. Below zero: a lone slice that no operating point
    would flag, or a study that marks too little; those keep the order of their highest probability.
    """
    any_probability = slices.probabilities[:, 0]
    if not len(any_probability):
        return NEVER
    alone = (any_probability - SURE_SHARE) / (1 - SURE_SHARE)  # where a lone slice stops to be sure
    points = np.unique(np.concatenate([any_probability, alone]))
    low, high = -1, len(points)  # invariant: flagged at points[low] (or low is none), not at points[high]
    low = _last_flagged(slices, thresholds, points, high, rules)
    return float(points[low]) if low >= 0 else NEVER + float(any_probability.max())


def _last_flagged(
    slices: SliceMeasures, thresholds: Numbers, points: Numbers, high: int, rules: FlaggingSettings | None
) -> int:
    low = -1
    while high - low > 1:
        middle = (low + high) // 2
        if is_flagged(slices, np.concatenate([points[middle : middle + 1], thresholds[1:]]), rules):
            low = middle
        else:
            high = middle
    return low


def _speaks(slices: SliceMeasures, thresholds: Numbers, label: int, rules: FlaggingSettings) -> bool:
    """Whether one label is agreed by neighbours, or by a slice that is sure and has too few others in reach."""
    positive = np.flatnonzero(
        (slices.probabilities[:, label] >= thresholds[label]) & (slices.probabilities[:, 0] >= thresholds[0])
    )
    chains = _chains(slices, positive, label, rules.max_gap_mm)
    if any(_agrees(slices, chain, label, rules) for chain in chains):
        return True
    bar = thresholds[label] + SURE_SHARE * (1 - thresholds[label])
    sure = (slices.probabilities[:, label] >= bar) & _alone(slices, rules)
    large = (chain for chain in chains if _large(slices, chain, label, 1, rules))
    return any(bool(sure[chain].any()) for chain in large)


def _alone(slices: SliceMeasures, rules: FlaggingSettings) -> NDArray[np.bool_]:
    """For each slice, whether all slices in its reach together could not agree, whatever they showed."""
    places, known = _places(slices.position_mm), np.unique(_places(slices.position_mm))
    reach = int(rules.max_gap_mm / POSITION_GRID_MM)
    near = np.searchsorted(known, places + reach, "right") - np.searchsorted(known, places - reach, "left")
    short = near * float(slices.thickness_mm.max(initial=0.0)) < rules.agree_extent_mm - TOUCH_MM
    return np.asarray((near < rules.agree_slices) | short)


def _places(position_mm: Numbers) -> NDArray[np.int64]:
    return np.array([round(float(at) / POSITION_GRID_MM) for at in position_mm], np.int64)


def _chains(slices: SliceMeasures, rows: NDArray[np.intp], label: int, max_gap_mm: float) -> list[NDArray[np.intp]]:
    """Positive slices joined where they lie within the gap and show the same place."""
    if not len(rows):
        return []
    at, centre = slices.position_mm[rows], slices.centroids_mm[rows, label]
    near = (at[None, :] >= at[:, None] - max_gap_mm) & (at[None, :] <= at[:, None] + max_gap_mm)
    away = np.hypot(*(centre[:, None] - centre[None, :]).transpose(2, 0, 1))
    linked = (near | near.T) & ~(away > SAME_PLACE_MM)  # NaN: not located, so not denied
    count, names = connected_components(csr_array(linked), directed=False)
    return [rows[names == one] for one in range(count)]


def _agrees(slices: SliceMeasures, chain: NDArray[np.intp], label: int, rules: FlaggingSettings) -> bool:
    thickness_mm = _per_place(slices, chain, slices.thickness_mm)
    enough = len(thickness_mm) >= rules.agree_slices
    long_enough = thickness_mm.sum() >= rules.agree_extent_mm - TOUCH_MM
    return bool(enough and long_enough and _large(slices, chain, label, rules.agree_slices, rules))


def _large(
    slices: SliceMeasures, chain: NDArray[np.intp], label: int, unmeasured: int, rules: FlaggingSettings
) -> bool:
    area_mm2 = slices.areas_mm2[:, label]
    volume_ml = _per_place(slices, chain, area_mm2 * slices.thickness_mm).sum() * ML_PER_MM3
    unsized = chain[(area_mm2[chain] == 0) & (slices.outside_mm2[chain, label] == 0)]
    return bool(volume_ml >= rules.min_volume_ml or len(np.unique(_places(slices.position_mm[unsized]))) >= unmeasured)


def _per_place(slices: SliceMeasures, chain: NDArray[np.intp], value: Numbers) -> Numbers:
    """The largest value at each position: two pictures of one position are one witness."""
    _, which = np.unique(_places(slices.position_mm[chain]), return_inverse=True)
    best = np.zeros(int(which.max()) + 1)
    np.maximum.at(best, which, value[chain])
    return best
