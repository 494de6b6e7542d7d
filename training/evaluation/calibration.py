"""From raw scores to probabilities that mean something, and the operating point. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from training.evaluation.measure import Numbers, calibration, threshold_at
from training.fit.data import Unfit
from training.phantom.render import LABELS

# No slice counts as positive under 0.3: a calibrated probability that low is no ground to overtake others, and where a
# kind is rare its false-alarm quantile lies in the noise. None lies so high that it could not be reached.
THRESHOLDS = (0.3, 0.95)
TEMPERATURES_LOG = (-2.5, 2.5)  # a twelfth to twelve times
LABEL_SHARE = 0.01  # each single label may be raised on this share of lesion-free validation slices


@dataclass(frozen=True)
class Calibrated:
    """What validation decides: Platt scale and offset, and the operating point, per label."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    thresholds: dict[str, float]


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.float32], false_alarm_share: float) -> Calibrated:
    """From raw validation logits (n, 6) and labels (n, 6), 0.5 where a label is not asked.

    Raises:
        Unfit: no slice is said to be clean, or none to have a bleed.
    """
    if not {0.0, 1.0} <= set(labels[:, 0].tolist()):
        raise Unfit("data: the validation part lacks slices with, or without, a bleed: nothing can be calibrated on it")
    scales, offsets, thresholds = [], [], {}
    for nth, label in enumerate(LABELS):
        free = (labels[:, nth] == 0) | (labels[:, 0] == 0)  # of masses public data say nothing, of any bleed they do
        asked = labels[:, nth] != 0.5
        scale, offset = calibration(logits[asked, nth], labels[asked, nth] == 1)
        probability = 1 / (1 + np.exp(-(logits[:, nth] * scale + offset)))
        share = false_alarm_share if label == "any" else LABEL_SHARE
        thresholds[label] = round(float(np.clip(threshold_at(probability[free], share), *THRESHOLDS)), 4)
        scales.append(scale)
        offsets.append(offset)
    return Calibrated(tuple(scales), tuple(offsets), thresholds)


@dataclass(frozen=True)
class Reliability:
    """Ten bins of stated probability: what was stated, what was true, how many slices."""

    stated: tuple[float, ...]
    true: tuple[float, ...]
    count: tuple[int, ...]


def reliability(probability: Numbers, truth: Numbers, bins: int = 10) -> Reliability:
    """Bins without a slice are left out."""
    which = np.minimum((probability * bins).astype(int), bins - 1)
    chosen = [which == nth for nth in range(bins) if (which == nth).any()]
    return Reliability(
        tuple(round(float(probability[rows].mean()), 4) for rows in chosen),
        tuple(round(float(truth[rows].mean()), 4) for rows in chosen),
        tuple(int(rows.sum()) for rows in chosen),
    )


def temperature(logits: Numbers, truth: Numbers) -> float:
    """The one number that logits are divided by so that the truth is most likely; 1 where one class is missing."""
    if not 0 < truth.sum() < len(truth):
        return 1.0

    def surprise(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        return float(np.mean(np.logaddexp(0, scaled) - truth * scaled))

    found = minimize_scalar(surprise, bounds=TEMPERATURES_LOG, method="bounded")
    return float(np.exp(found.x))


def tempered(logits: Numbers, truth: Numbers, patient: NDArray[np.int64], folds: int = 2) -> Numbers:
    """Probabilities at a temperature that was fitted on other patients."""
    told = np.empty(len(logits))
    for fold in range(folds):
        test = patient % folds == fold
        told[test] = 1 / (1 + np.exp(-logits[test] / temperature(logits[~test], truth[~test])))
    return told
