"""Figures of merit, each with what it is uncertain by. Pure: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

Numbers: TypeAlias = NDArray[np.float64]
BOOTSTRAPS = 400
SMALL_MM2 = (40.0, 120.0, 400.0, 1e9)  # lesion area classes, of a slice


@dataclass(frozen=True)
class Estimate:
    """A figure and its 95 % bootstrap interval, heads drawn with replacement (slices of a head are not independent)."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """`0.912 (0.880–0.941)`."""
        return f"{self.value:.3f} ({self.low:.3f}–{self.high:.3f})"


def auc(truth: Numbers, score: Numbers) -> float:
    """Area under the ROC curve (Mann–Whitney, ties count half); NaN where one class is missing."""
    sick = truth == 1
    many, few = int(sick.sum()), int((~sick).sum())
    if not many or not few:
        return float("nan")
    return float((rankdata(score)[sick].sum() - many * (many + 1) / 2) / (many * few))


def by_head(
    figure: Callable[[NDArray[np.intp]], float], head: NDArray[np.int64], seed: int = 11, rounds: int = BOOTSTRAPS
) -> Estimate:
    """`figure` of all rows, and its interval over redrawn heads. `figure` takes row numbers."""
    rng = np.random.default_rng(seed)
    names = np.unique(head)
    rows_of = {int(name): np.flatnonzero(head == name) for name in names}
    drawn = []
    for _ in range(rounds):
        rows = np.concatenate([rows_of[int(name)] for name in rng.choice(names, len(names))])
        drawn.append(figure(rows))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Estimate(figure(np.arange(len(head))), float(low), float(high))


def threshold_at(score: Numbers, share: float) -> float:
    """The lowest threshold that at most `share` of these (negative) scores reach."""
    allowed = int(share * len(score) + 1e-9)
    return float(np.sort(score)[::-1][min(allowed, len(score) - 1)]) + 1e-4


def calibration(logits: Numbers, truth: Numbers) -> tuple[float, float]:
    """Scale and offset for the logits (Platt), mildly held back to 1 and 0."""
    if not 0 < truth.sum() < len(truth):
        return 1.0, 0.0
    model = LogisticRegression(C=1.0).fit(logits.reshape(-1, 1), truth)
    return float(np.clip(model.coef_[0, 0], 0.2, 3.0)), float(model.intercept_[0])


def calibration_error(probability: Numbers, truth: Numbers, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    error = 0.0
    for nth in range(bins):
        chosen = which == nth
        if chosen.any():
            error += chosen.mean() * abs(probability[chosen].mean() - truth[chosen].mean())
    return float(error)


def dice(guess: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Overlap of two masks; 1 where both are empty."""
    total = guess.sum() + truth.sum()
    return float(2 * (guess & truth).sum() / total) if total else 1.0


def recall_by_area(area_mm2: Numbers, flagged: NDArray[np.bool_]) -> list[tuple[str, int, float]]:
    """(class, slices, share flagged) of slices with a lesion, by its area."""
    rows = []
    for low, high in pairwise(SMALL_MM2):
        chosen = (area_mm2 >= low) & (area_mm2 < high)
        name = f"{low:.0f}–{high:.0f} mm²" if high < 1e8 else f"over {low:.0f} mm²"
        rows.append((name, int(chosen.sum()), float(flagged[chosen].mean()) if chosen.any() else float("nan")))
    return rows
