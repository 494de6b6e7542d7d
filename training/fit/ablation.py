"""What each option is worth: the same figures of every recipe and seed, and the table they make. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data.study import GRAZED
from training.evaluation.measure import auc, dice
from training.fit.augment import plain_grid
from training.slices_out import SliceTable

BATCH = 16
COLUMNS: Mapping[str, str] = {  # key of a figure: its heading
    "hard.auc": "AUC, hard phantoms",
    "hard.dice": "Dice, hard",
    "held_out.auc": "AUC, held-out families",
    "held_out.dice": "Dice, held-out",
    "held_out.false_alarms": "False alarms, held-out",
    "real.false_alarms": "False alarms, real",
    "real.highest": "Highest, real",
    "epochs": "Epochs",
    "fit_s": "Fit, s",
}
NOT_MEASURED = "–"


@dataclass(frozen=True)
class Trial:
    """One recipe, fitted with one seed."""

    option: str
    seed: int
    figures: Mapping[str, float]


def judged(served: nn.Module, table: SliceTable, threshold: float) -> dict[str, float]:
    """AUC of *any*, Dice over slices with a lesion (all kinds together), false alarms of lesion-free slices."""
    probability, masks = answers(served, table)
    asked = table.labels[:, 0] != GRAZED
    truth, score = (table.labels[asked, 0] == 1).astype(float), probability[asked]
    sick = np.flatnonzero(table.labels[:, 0] == 1)
    _, marks = plain_grid(table, sick) if len(sick) else (None, torch.zeros(0))
    overlaps = [dice(masks[row], mark.any(0)) for row, mark in zip(sick, marks.numpy() > 0.5, strict=True)]
    clean = score[truth == 0]
    return {
        "auc": float(auc(truth, score)),
        "dice": float(np.mean(overlaps)) if overlaps else float("nan"),
        "false_alarms": float((clean >= threshold).mean()) if len(clean) else float("nan"),
    }


def answers(served: nn.Module, table: SliceTable) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n,) probabilities of *any* and (n, S, S) masks at one half, through the served preprocessing."""
    told, masks = [], []
    for at in range(0, len(table.hu), BATCH):
        hu = torch.from_numpy(table.hu[at : at + BATCH].astype(np.float16))
        spacing = torch.from_numpy(table.pitch_mm[at : at + BATCH])[:, None].repeat(1, 2)
        with torch.no_grad():
            probabilities, segmentation = served.eval()(hu, spacing)
        told.append(probabilities[:, 0].double().numpy())
        masks.append((segmentation > 0.5).any(1).numpy())
    return np.concatenate(told), np.concatenate(masks)


def on_real(
    served: nn.Module, images: Sequence[tuple[NDArray[np.float32], float]], threshold: float
) -> dict[str, float]:
    """Bleed-free slices (HU, pitch in mm): the share of them raised, and the highest probability."""
    scores = []
    for hu, pitch_mm in images:
        held = torch.from_numpy(np.clip(hu, -1024, 3071)[None].astype(np.float16))
        with torch.no_grad():
            scores.append(float(served.eval()(held, torch.full((1, 2), pitch_mm))[0][0, 0]))
    return {"false_alarms": float(np.mean(np.array(scores) >= threshold)), "highest": max(scores)}


def markdown(trials: Sequence[Trial], words: str) -> str:
    """One row an option in the order of the trials: mean over seeds, and the range where there are several."""
    shown = {key: title for key, title in COLUMNS.items() if any(key in trial.figures for trial in trials)}
    options = list(dict.fromkeys(trial.option for trial in trials))
    lines = [
        "| Option | Seeds | " + " | ".join(shown.values()) + " |",
        "|---" * (len(shown) + 2) + "|",
    ]
    for option in options:
        mine = [trial for trial in trials if trial.option == option]
        cells = [_cell([trial.figures.get(key, float("nan")) for trial in mine]) for key in shown]
        lines.append(f"| {option} | {len(mine)} | " + " | ".join(cells) + " |")
    return "\n".join(["# Ablation", "", words, "", *lines, "", "Not for diagnosis; trained on synthetic data.", ""])


def _cell(values: Sequence[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    if not known:
        return NOT_MEASURED
    digits = 0 if max(known) >= 10 else 3
    mean = f"{np.mean(known):.{digits}f}"
    return mean if len(known) < 2 else f"{mean} ({min(known):.{digits}f}–{max(known):.{digits}f})"


def as_json(trials: Sequence[Trial], words: str) -> dict[str, Any]:
    """The same, for programs."""
    return {
        "words": words,
        "trials": [{"option": one.option, "seed": one.seed, **one.figures} for one in trials],
    }
