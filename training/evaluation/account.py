"""Everything that report and card tell, as one JSON value: both are written from it and from nothing else. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from training.evaluation import figures
from training.evaluation.calibration import reliability, temperature, tempered
from training.evaluation.figures import BUDGET, KEYS
from training.evaluation.judging import FOUND_SHARE, Judged
from training.evaluation.measure import Numbers, calibration_error
from training.evaluation.tiers import Outcome, Refused
from training.evaluation.verdict import ML_PER_MM3

AIMS = {
    "study_auc": ("≥", 0.97),
    "false_study_rate": ("≤", 0.05),
    "lesion_recall_2ml": ("≥", 0.90),
    "dice": ("≥", 0.75),
}
MEANING = {
    "study_auc": "studies with against studies without a lesion, ranked by the highest operating point at which the"
    " service would flag them (neighbouring slices must agree)",
    "image_auc": "slices with against slices without a lesion; slices a lesion only grazes are not asked",
    "sensitivity": "share of studies with a lesion that the service flags at the operating point",
    "false_study_rate": "share of studies without a lesion that it flags",
    "lesion_recall_2ml": f"share of 3D-connected lesions from 2 ml up of which at least {FOUND_SHARE:.0%} is marked, on"
    " slices at or above the operating point",
    "dice": "overlap of marks and truth in 3D, mean over studies with a lesion, on the scan's own pixels",
    "calibration_error": "expected calibration error of the image probability, ten bins",
}
SMALL_SAMPLE = 40  # fewer studies than this say little: the page says so


def notice(trained_on: str) -> str:
    """What stands over every figure. `trained_on`: the model's own word; "synthetic…": it learned no real bleed."""
    if trained_on == "synthetic":
        return "Not for diagnosis; trained on synthetic data."
    if learned_no_real_bleed(trained_on):
        return "Not for diagnosis; trained on synthetic lesions alone: it has learned no real bleed."
    return f"Not for diagnosis; {f'trained on {trained_on}' if trained_on else 'what it was trained on is not said'}."


def learned_no_real_bleed(trained_on: str) -> bool:
    """As the model's parameter `trained_on` begins."""
    return trained_on.startswith("synthetic")


def headline_json(outcome: Outcome, network: str, baseline: str, threshold: float) -> dict[str, Any]:
    """What `--json` prints."""
    told: dict[str, Any] = figures.rounded(figures.headline(outcome.judged.get(network, []), threshold))
    told["threshold_baseline"] = figures.rounded(baseline_headline(outcome, network, baseline, threshold)[0])
    return told


def baseline_headline(
    outcome: Outcome, network: str, baseline: str, threshold: float
) -> tuple[dict[str, float], float]:
    """A baseline's figures, and its operating point: set in hindsight at the network's false rate, or the budget's.

    Its probabilities are calibrated by cross-fitting, for it has none of its own.
    """
    cases = outcome.judged.get(baseline, [])
    clean = [one for one in outcome.judged.get(network, []) if one.case.sick is False]
    allowed = max(BUDGET, figures.share(one.flagged(threshold) for one in clean)) if clean else BUDGET
    point = figures.hindsight_threshold(cases, allowed)
    return figures.headline(cases, point, figures.cross_fitted(cases)), point


def section(outcome: Outcome, network: str, threshold: float) -> dict[str, Any]:
    """A labelled tier (S or L)."""
    cases = outcome.judged.get(network, [])
    return {
        "counted": figures.counted(cases),
        "network": figures.with_intervals(cases, threshold),
        "baselines": {name: _baseline(outcome, network, name, threshold) for name in outcome.judged if name != network},
        "aims": _aims(figures.headline(cases, threshold)),
        "operating_point": _operating_point(cases, threshold),
        "lesions": figures.lesion_tables(cases, threshold),
        "kinds": figures.kind_rows(cases, threshold),
        "subgroups": figures.subgroups(cases, threshold),
        "calibration": _calibration(cases),
        "coverage": figures.coverage(cases, threshold),
        "abstained": abstained(outcome.refused),
        "robustness": {name: figures.headline(told, threshold) for name, told in outcome.shifted.items()},
        "shifted_studies": max((len(told) for told in outcome.shifted.values()), default=0),
    }


def _baseline(outcome: Outcome, network: str, name: str, threshold: float) -> dict[str, Any]:
    told, point = baseline_headline(outcome, network, name, threshold)
    return {**told, "studies": len(outcome.judged[name]), "operating_point": point}


def _aims(told: Mapping[str, float]) -> list[dict[str, Any]]:
    rows = []
    for key, (sign, aim) in AIMS.items():
        met = told[key] >= aim if sign == "≥" else told[key] <= aim
        rows.append({"figure": key, "aim": f"{sign} {aim:g}", "told": told[key], "met": bool(met)})
    return rows


def _operating_point(cases: Sequence[Judged], threshold: float) -> dict[str, Any]:
    """The shipped point, and what the budget would have chosen on these very studies."""
    clean = [one for one in cases if one.case.sick is False]
    hindsight = figures.operating_point(cases) if clean else None
    there = figures.headline(cases, hindsight) if hindsight is not None else {}
    return {
        "shipped": threshold,
        "budget": BUDGET,
        "hindsight": hindsight,
        "sensitivity_there": there.get("sensitivity"),
        "false_study_rate_there": there.get("false_study_rate"),
    }


def _calibration(cases: Sequence[Judged]) -> dict[str, Any]:
    slices = figures.pooled(cases)
    if not len(slices.truth):
        return {}
    logits = figures.logit(slices.score)
    after = tempered(logits, slices.truth, slices.patient) if len(set(slices.patient.tolist())) > 1 else slices.score
    return {
        "temperature": temperature(logits, slices.truth),
        "error": calibration_error(slices.score, slices.truth),
        "error_tempered": calibration_error(after, slices.truth),
        "brier": _brier(slices.score, slices.truth),
        "brier_tempered": _brier(after, slices.truth),
        "reliability": vars(reliability(slices.score, slices.truth)),
    }


def _brier(probability: Numbers, truth: Numbers) -> float:
    return float(np.mean((probability - truth) ** 2))


def abstained(refused: Sequence[Refused]) -> dict[str, Any]:
    """By reason; files are named below the data's folder, because somebody must be able to look."""
    reasons = Counter(one.reason for one in refused)
    return {
        "studies": len(refused),
        "reasons": [{"reason": reason, "studies": count} for reason, count in reasons.most_common(20)],
        "places": [one.place for one in refused[:20]],
    }


def unlabelled(outcome: Outcome, network: str, threshold: float) -> dict[str, Any]:
    """Tier R: how much is raised on scans of which nobody said anything, by the network and by each baseline."""
    told = {}
    for name, cases in outcome.judged.items():
        point = threshold if name == network else 0.5
        told[name] = _raised(cases, point)
    return {"readers": told, "abstained": abstained(outcome.refused)}


def _raised(cases: Sequence[Judged], threshold: float) -> dict[str, Any]:
    speaks = [one.probabilities[:, 0] >= threshold for one in cases]
    spoken = list(zip(cases, speaks, strict=True))
    slices = sum(len(rows) for rows in speaks)
    return {
        "studies": len(cases),
        "flagged_studies": sum(one.flagged(threshold) for one in cases),
        "slices": slices,
        "raised_slices": int(sum(rows.sum() for rows in speaks)),
        "raised_share": sum(rows.sum() for rows in speaks) / slices if slices else float("nan"),
        "refused_slices": sum(int(one.refused.sum()) for one in cases),
        "marked_ml": sum(_ml(one, one.areas_mm2[rows]) for one, rows in spoken),
        "outside_ml": sum(_ml(one, one.outside_mm2[rows]) for one, rows in spoken),
        "highest": max((float(one.probabilities[:, 0].max()) for one in cases), default=float("nan")),
        "operating_point": threshold,
    }


def _ml(one: Judged, areas_mm2: Numbers) -> float:
    return float(areas_mm2.sum() * one.case.spacing_mm[0] * ML_PER_MM3)


def small(counted: Mapping[str, int]) -> bool:
    """Whether the sample is too small to lean on."""
    return counted["studies"] < SMALL_SAMPLE


__all__ = [
    "AIMS",
    "KEYS",
    "MEANING",
    "headline_json",
    "learned_no_real_bleed",
    "notice",
    "section",
    "small",
    "unlabelled",
]
