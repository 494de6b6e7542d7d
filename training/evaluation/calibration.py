"""From raw scores to probabilities that mean something, and the operating point. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation.measure import calibration, threshold_at
from training.phantom.render import LABELS

# No slice counts as positive under 0.3: a calibrated probability that low is no ground to overtake others, and where a
# kind is rare its false-alarm quantile lies in the noise. None lies so high that it could not be reached.
THRESHOLDS = (0.3, 0.95)
LABEL_SHARE = 0.01  # each single label may be raised on this share of lesion-free validation slices


@dataclass(frozen=True)
class Calibrated:
    """What validation decides: Platt scale and offset, and the operating point, per label."""

    scale: tuple[float, ...]
    offset: tuple[float, ...]
    thresholds: dict[str, float]


def calibrate(logits: NDArray[np.float64], labels: NDArray[np.float32], false_alarm_share: float) -> Calibrated:
    """From raw validation logits (n, 6) and labels (n, 6)."""
    scales, offsets, thresholds = [], [], {}
    free = labels.max(1) == 0
    for nth, label in enumerate(LABELS):
        asked = labels[:, nth] != 0.5
        scale, offset = calibration(logits[asked, nth], labels[asked, nth] == 1)
        probability = 1 / (1 + np.exp(-(logits[:, nth] * scale + offset)))
        share = false_alarm_share if label == "any" else LABEL_SHARE
        thresholds[label] = round(float(np.clip(threshold_at(probability[free], share), *THRESHOLDS)), 4)
        scales.append(scale)
        offsets.append(offset)
    return Calibrated(tuple(scales), tuple(offsets), thresholds)
