"""From judged studies to figures, each with its 95 % interval by patient. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from training.evaluation.judging import Judged, asked
from training.evaluation.measure import BOOTSTRAPS, Numbers, auc, by_head, calibration_error, threshold_at

LARGE_ML = 2.0  # from here up a lesion is promised to be found
BUDGET = 0.05  # one false study in twenty
LOWEST, HIGHEST = 0.3, 0.98  # an operating point is never set below (no ground to overtake) or above (never reached)
KEYS = (
    "study_auc",
    "image_auc",
    "sensitivity",
    "false_study_rate",
    "lesion_recall_2ml",
    "dice",
    "calibration_error",
)
Class: TypeAlias = tuple[float, float]
VOLUMES_ML: tuple[Class, ...] = ((0, 0.5), (0.5, 2), (2, 5), (5, 15), (15, 1e9))
DENSITIES_HU: tuple[Class, ...] = ((-1e9, 45), (45, 55), (55, 65), (65, 75), (75, 1e9))
THICKNESSES_MM: tuple[Class, ...] = ((0, 2), (2, 4), (4, 6), (6, 1e9))
AGES_YEARS: tuple[Class, ...] = ((0, 18), (18, 40), (40, 65), (65, 80), (80, 1e9))


@dataclass(frozen=True)
class Pooled:
    """All asked slices of many studies in one list. patient: a number for each."""

    truth: Numbers
    score: Numbers
    patient: NDArray[np.int64]


def pooled(cases: Sequence[Judged]) -> Pooled:
    """Slices of which *any* is known."""
    numbers = _patients(cases)
    rows = [asked(one.case.labels) for one in cases]
    truth = [one.case.labels[row, 0] for one, row in zip(cases, rows, strict=True)]
    score = [one.probabilities[row, 0] for one, row in zip(cases, rows, strict=True)]
    owner = [np.full(int(row.sum()), n) for n, row in zip(numbers, rows, strict=True)]
    return Pooled(_joined(truth), _joined(score), _joined(owner).astype(np.int64))


def _joined(parts: Sequence[NDArray[Any]]) -> Numbers:
    return np.concatenate([np.empty(0), *parts]).astype(np.float64)


def _patients(cases: Sequence[Judged]) -> NDArray[np.int64]:
    names = {name: nth for nth, name in enumerate(dict.fromkeys(one.case.patient for one in cases))}
    return np.array([names[one.case.patient] for one in cases], np.int64)


def headline(cases: Sequence[Judged], threshold: float, probability: Numbers | None = None) -> dict[str, float]:
    """The seven figures; NaN where the truth does not tell. `probability`: of the pooled slices, if not the score."""
    slices = pooled(cases)
    sick = [one for one in cases if one.case.sick]
    clean = [one for one in cases if one.case.sick is False]
    known = sick + clean
    truth = np.array([1.0] * len(sick) + [0.0] * len(clean))
    stated = slices.score if probability is None else probability
    found = [f for one in cases for f, lesion in _lesions(one, threshold) if lesion.volume_ml >= LARGE_ML]
    return {
        "study_auc": auc(truth, np.array([one.score for one in known])),
        "image_auc": auc(slices.truth, slices.score),
        "sensitivity": share(one.flagged(threshold) for one in sick),
        "false_study_rate": share(one.flagged(threshold) for one in clean),
        "lesion_recall_2ml": share(found),
        "dice": mean([one.dice for one in cases if one.dice is not None]),
        "calibration_error": calibration_error(stated, slices.truth) if len(stated) else float("nan"),
    }


def _lesions(one: Judged, threshold: float) -> list[tuple[bool, Any]]:
    return list(zip(one.found(threshold), one.case.lesions, strict=True))


def share(values: Any) -> float:
    """Of a list of yes and no; NaN where it is empty."""
    return mean([float(value) for value in values])


def mean(values: Sequence[float]) -> float:
    """NaN where there is none."""
    return float(np.mean(values)) if len(values) else float("nan")


def interval(
    cases: Sequence[Judged], figure: Callable[[Sequence[Judged]], float], rounds: int = BOOTSTRAPS
) -> list[float]:
    """Value, low and high: patients drawn with replacement."""
    if not cases:
        return [float("nan")] * 3
    told = by_head(lambda rows: figure([cases[int(row)] for row in rows]), _patients(cases), rounds=rounds)
    return [told.value, told.low, told.high]


def hindsight_threshold(cases: Sequence[Judged], allowed: float) -> float:
    """A baseline's operating point: the lowest that flags at most this share of these very clean studies.

    It is chosen with the answers on the table, which favours the baseline.
    """
    scores = np.array([one.score for one in cases if one.case.sick is False])
    return threshold_at(scores, max(allowed, 1e-3)) if len(scores) else 0.5


def operating_point(cases: Sequence[Judged], budget: float = BUDGET) -> float:
    """The lowest point of *any* at which at most `budget` of clean studies, and of their images, are raised.

    To be chosen on validation studies, never on those that are told.

    Raises:
        ValueError: there is no clean study.
    """
    clean = [one for one in cases if one.case.sick is False]
    if not clean:
        raise ValueError("an operating point is chosen on studies without a lesion, and there is none")
    studies = threshold_at(np.array([one.score for one in clean]), budget)
    images = threshold_at(np.concatenate([one.probabilities[:, 0] for one in clean]), budget)
    return round(float(np.clip(max(studies, images), LOWEST, HIGHEST)), 4)


def cross_fitted(cases: Sequence[Judged], folds: int = 5) -> Numbers:
    """A score without a scale as probabilities: logistic regression on its logit, each patient by a fit of the others.

    Returns the probabilities of the pooled slices.
    """
    slices = pooled(cases)
    told = np.full(len(slices.truth), float(slices.truth.mean()) if len(slices.truth) else 0.0)
    odds = logit(slices.score)[:, None]
    for fold in range(folds):
        test = slices.patient % folds == fold
        learn = slices.truth[~test]
        if test.any() and 0 < learn.sum() < len(learn):
            told[test] = LogisticRegression().fit(odds[~test], learn).predict_proba(odds[test])[:, 1]
    return told


def logit(probability: Numbers) -> Numbers:
    """Kept finite."""
    kept = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.asarray(np.log(kept / (1 - kept)), np.float64)


def with_intervals(cases: Sequence[Judged], threshold: float, rounds: int = 200) -> dict[str, list[float]]:
    """Every headline figure and the average precision: value, low, high. All are told of the same redrawn patients."""
    patients, rng = _patients(cases), np.random.default_rng(11)
    rows_of = [np.flatnonzero(patients == name) for name in np.unique(patients)]
    drawn = []
    for _ in range(rounds if cases else 0):
        rows = np.concatenate([rows_of[nth] for nth in rng.integers(0, len(rows_of), len(rows_of))])
        drawn.append(_all_figures([cases[int(row)] for row in rows], threshold))
    told = _all_figures(cases, threshold)
    return {key: [value, *_percentiles([one[key] for one in drawn])] for key, value in told.items()}


def _all_figures(cases: Sequence[Judged], threshold: float) -> dict[str, float]:
    return {**headline(cases, threshold), "image_average_precision": _precision(cases)}


def _percentiles(values: Sequence[float]) -> list[float]:
    known = [value for value in values if not np.isnan(value)]
    return [float(one) for one in np.percentile(known, [2.5, 97.5])] if known else [float("nan")] * 2


def _precision(cases: Sequence[Judged]) -> float:
    slices = pooled(cases)
    return average_precision(slices.truth, slices.score)


def average_precision(truth: Numbers, score: Numbers) -> float:
    """Area under precision and recall, as scikit-learn steps it; here because a bootstrap asks it hundreds of times."""
    if not 0 < truth.sum() < len(truth):
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = np.cumsum(truth[order])[last_of_ties]
    gained = np.diff(hits, prepend=0.0) / hits[-1]
    return float((gained * hits / (last_of_ties + 1)).sum())


Row: TypeAlias = dict[str, Any]


def lesion_tables(cases: Sequence[Judged], threshold: float) -> dict[str, list[Row]]:
    """Recall of lesions by kind, volume, density and slice thickness; by the last three from LARGE_ML up as well."""
    told = [(one, found, lesion) for one in cases for found, lesion in _lesions(one, threshold)]
    kinds = dict.fromkeys(lesion.kind for _, _, lesion in told)
    return {
        "kind": [_lesion_row(kind, [t for t in told if t[2].kind == kind]) for kind in sorted(kinds)],
        "volume": _classed(told, VOLUMES_ML, "ml", lambda t: t[2].volume_ml),
        "density": _classed(told, DENSITIES_HU, "HU", lambda t: t[2].density_hu),
        "slice thickness": _classed(told, THICKNESSES_MM, "mm", lambda t: t[0].case.spacing_mm[0]),
    }


def _classed(told: list[Any], classes: Sequence[Class], unit: str, value: Callable[[Any], float]) -> list[Row]:
    rows = [_lesion_row(named(one, unit), [t for t in told if one[0] <= value(t) < one[1]]) for one in classes]
    return [row for row in rows if row["lesions"]]


def _lesion_row(name: str, told: list[Any]) -> Row:
    large = [found for _, found, lesion in told if lesion.volume_ml >= LARGE_ML]
    return {
        "class": name,
        "lesions": len(told),
        "recall": share(found for _, found, _ in told),
        "from_2_ml": len(large),
        "recall_2ml": share(large),
    }


def named(one: Class, unit: str) -> str:
    """`2–5 ml`, `under 2 mm`, `75 HU and over`."""
    low, high = one
    if low <= 0 or low < -1e8:
        return f"under {high:g} {unit}"
    return f"{low:g} {unit} and over" if high > 1e8 else f"{low:g}–{high:g} {unit}"


def subgroups(cases: Sequence[Judged], threshold: float) -> dict[str, list[Row]]:
    """Age, sex, scanner, slice thickness and what a tier tags its studies with, where known."""
    groups: dict[str, Callable[[Judged], str | None]] = {
        "age": lambda one: _in_class(one.case.facts.age_years, AGES_YEARS, "years"),
        "sex": lambda one: one.case.facts.sex,
        "scanner": lambda one: one.case.facts.scanner,
        "kernel": lambda one: one.case.facts.kernel,
        "slice distance": lambda one: _in_class(one.case.spacing_mm[0], THICKNESSES_MM, "mm"),
    }
    for tag in dict.fromkeys(tag for one in cases for tag in one.case.tags):
        groups[tag] = lambda one, tag=tag: one.case.tags.get(tag)  # type: ignore[misc]  # the default binds the tag
    told = {name: _group_rows(cases, threshold, of) for name, of in groups.items()}
    return {name: rows for name, rows in told.items() if rows}


def _in_class(value: float | None, classes: Sequence[Class], unit: str) -> str | None:
    if value is None:
        return None
    return next(named(one, unit) for one in classes if one[0] <= value < one[1])


def _group_rows(cases: Sequence[Judged], threshold: float, of: Callable[[Judged], str | None]) -> list[Row]:
    rows = []
    for name in sorted({key for one in cases if (key := of(one)) is not None}):
        chosen = [one for one in cases if of(one) == name]
        told = headline(chosen, threshold)
        kept = {key: told[key] for key in ("image_auc", "sensitivity", "false_study_rate", "dice")}
        sick = sum(bool(one.case.sick) for one in chosen)
        rows.append({"class": name, "studies": len(chosen), "with_lesion": sick, **kept})
    return rows


def coverage(cases: Sequence[Judged], threshold: float) -> list[Row]:
    """Were the least sure studies left to a reader without a word: errors among the rest, by share spoken for."""
    known = sorted((one for one in cases if one.case.sick is not None), key=lambda o: -abs(o.score - threshold))
    wrong = np.array([one.flagged(threshold) != one.case.sick for one in known], float)
    rows = []
    for part in (1.0, 0.9, 0.8, 0.7, 0.5):
        count = round(part * len(known))
        rows.append({"spoken_for": part, "studies": count, "wrong": float(wrong[:count].mean()) if count else None})
    return rows


def counted(cases: Sequence[Judged]) -> dict[str, int]:
    """How much there is."""
    slices = pooled(cases)
    return {
        "studies": len(cases),
        "with_lesion": sum(bool(one.case.sick) for one in cases),
        "without": sum(one.case.sick is False for one in cases),
        "patients": len({one.case.patient for one in cases}),
        "slices": sum(len(one.probabilities) for one in cases),
        "asked_slices": len(slices.truth),
        "asked_with_lesion": int(slices.truth.sum()),
        "refused_slices": sum(int(one.refused.sum()) for one in cases),
        "refused_with_lesion": sum(int((one.case.labels[one.refused, 0] == 1).sum()) for one in cases),
        "lesions": sum(len(one.case.lesions) for one in cases),
        "lesions_2ml": sum(lesion.volume_ml >= LARGE_ML for one in cases for lesion in one.case.lesions),
    }


def rounded(told: Mapping[str, float]) -> dict[str, float]:
    """Four digits are more than any figure deserves."""
    return {key: round(float(value), 4) for key, value in told.items()}


def kind_rows(cases: Sequence[Judged], threshold: float) -> list[Row]:
    """Studies by each kind of lesion in them: how many are flagged."""
    rows = []
    for kind in sorted({kind for one in cases for kind in one.case.kinds}):
        chosen = [one for one in cases if kind in one.case.kinds and one.case.sick]
        told = interval(chosen, lambda some: share(one.flagged(threshold) for one in some), 200)
        rows.append({"class": kind, "studies": len(chosen), "sensitivity": told})
    return rows
