"""Honest evaluation: the served graph on slices of held-out seeds, families and real scans, beside an HU threshold.

Pure: tables and scores in, a report's figures out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.evaluation.measure import (
    auc,
    by_head,
    calibration_error,
    dice,
    recall_by_area,
    threshold_at,
)
from training.evaluation.threshold import blood_areas_mm2
from training.fit.augment import plain_grid
from training.phantom.render import LABELS
from training.slices_out import SliceTable


def choose_blood_hu(table: SliceTable) -> float:
    """The baseline's lower HU bound that separates the validation slices best: a fair opponent is a tuned one."""
    asked = table.labels[:, 0] != 0.5
    truth = (table.labels[:, 0] == 1).astype(float)[asked]
    scores = {hu: auc(truth, blood_areas_mm2(table.hu[asked], table.pitch_mm[asked], hu)) for hu in (48.0, 54.0, 60.0)}
    return max(scores, key=lambda hu: scores[hu])


def judge(
    table: SliceTable,
    probabilities: NDArray[np.float64],
    masks: NDArray[np.bool_],
    thresholds: dict[str, float],
    blood_from_hu: float,
    *,
    one_patient: bool = False,
) -> dict[str, Any]:
    """All figures of one labelled set; an interval says how heads differ, so of one patient's slices there is none."""
    asked = table.labels[:, 0] != 0.5
    truth, score, head = (table.labels[asked, 0] == 1).astype(float), probabilities[asked, 0], table.head[asked]
    area = blood_areas_mm2(table.hu[asked], table.pitch_mm[asked], blood_from_hu)
    flagged = score >= thresholds["any"]

    def told(figure: Callable[[NDArray[np.intp]], float]) -> list[float]:
        if one_patient:
            return [round(figure(np.arange(len(head))), 4), math.nan, math.nan]
        estimate = by_head(figure, head)
        return [round(estimate.value, 4), round(estimate.low, 4), round(estimate.high, 4)]

    return {
        "slices": int(asked.sum()),
        "left_out": int((~asked).sum()),
        "with_lesion": int(truth.sum()),
        "one_patient": one_patient,
        "auc": told(lambda r: auc(truth[r], score[r])),
        "auc_hu_threshold": told(lambda r: auc(truth[r], area[r])),
        "auc_gain": told(lambda r: auc(truth[r], score[r]) - auc(truth[r], area[r])),
        "sensitivity": float(flagged[truth == 1].mean()),
        "false_alarm_share": float(flagged[truth == 0].mean()),
        "sensitivity_hu_threshold_same_share": _sensitivity_at(truth, area, float(flagged[truth == 0].mean())),
        "calibration_error": calibration_error(score, truth),
        "label_auc": _label_aucs(table, probabilities),
        "dice_of_lesion_slices": _mean_dice(table, masks),
        "recall_by_area": _recall(table, asked, flagged),
    }


def _sensitivity_at(truth: NDArray[np.float64], score: NDArray[np.float64], share: float) -> float:
    return float((score[truth == 1] >= threshold_at(score[truth == 0], max(share, 1e-3))).mean())


def _label_aucs(table: SliceTable, probabilities: NDArray[np.float64]) -> dict[str, float]:
    aucs = {}
    for nth, label in enumerate(LABELS):
        asked = table.labels[:, nth] != 0.5
        aucs[label] = round(auc((table.labels[asked, nth] == 1).astype(float), probabilities[asked, nth]), 4)
    return aucs


def _mean_dice(table: SliceTable, masks: NDArray[np.bool_]) -> float:
    """Of all lesion channels together, over slices that hold a lesion, on the served grid."""
    rows = np.flatnonzero(table.labels[:, 0] == 1)
    _, truth = plain_grid(table, rows)
    return float(np.mean([dice(masks[r].any(0), t.any(0)) for r, t in zip(rows, truth.numpy() > 0.5, strict=True)]))


def _recall(table: SliceTable, asked: NDArray[np.bool_], flagged: NDArray[np.bool_]) -> list[tuple[str, int, float]]:
    area = (table.bits[asked] > 0).sum((1, 2)) * table.pitch_mm[asked].astype(np.float64) ** 2
    sick = table.labels[asked, 0] == 1
    return recall_by_area(area[sick], flagged[sick])
