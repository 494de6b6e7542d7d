"""Why a figure is below its aim, as far as the figures tell. Pure: a section of the account in, words out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
FEW = 5  # of fewer cases a group is not held to be the cause


def why(figure: str, told: Mapping[str, Any]) -> str:
    """A sentence or two; what they name goes together with the figure, which is no proof of a cause."""
    sentences = [sentence for say in SAY[figure] if (sentence := say(told))]
    return " ".join(sentences) or "The figures do not tell why: too few cases in any group."


def _missed_lesions(told: Mapping[str, Any]) -> str:
    """The kind, size and density of which most are missed."""
    total = sum(row["from_2_ml"] for row in told["lesions"]["kind"])
    lost = sum(_lost(row) for row in told["lesions"]["kind"])
    parts = [part for name in ("kind", "volume", "density") if (part := _most_missed(name, told["lesions"][name]))]
    return f"Of {total} lesions from 2 ml up {lost} are missed, most by {'; by '.join(parts)}." if parts else ""


def _most_missed(name: str, rows: Sequence[Row]) -> str:
    worst = max((row for row in rows if row["from_2_ml"]), key=_lost, default=None)
    return (
        ""
        if worst is None or not _lost(worst)
        else f"{name}: {worst['class']} ({_lost(worst)} of {worst['from_2_ml']})"
    )


def _lost(row: Row) -> int:
    return round(row["from_2_ml"] * (1 - (row["recall_2ml"] or 0.0))) if row["from_2_ml"] else 0


def _hardly_marked(told: Mapping[str, Any]) -> str:
    """Dice of a study in which nothing of the lesion is marked is 0."""
    rows = told["lesions"]["volume"]
    if not rows:
        return ""
    lost = [round(row["lesions"] * (1 - row["recall"])) for row in rows]
    most, worst = max(zip(lost, rows, strict=True), key=lambda pair: pair[0])
    every = sum(row["lesions"] for row in rows)
    sentence = f"{sum(lost)} of {every} lesions of any size are hardly marked or not at all"
    return f"{sentence}, most of the class {worst['class']} ({most} of {worst['lesions']})."


def _dice_group(told: Mapping[str, Any]) -> str:
    found = _extreme(told, "dice", lambda row: row["with_lesion"], min)
    return f"It is lowest where {found}." if found else ""


def _missed_studies(told: Mapping[str, Any]) -> str:
    rows = [row for row in told["kinds"] if row["studies"] >= FEW and row["sensitivity"][0] < 1]
    if not rows:
        return ""
    worst = min(rows, key=lambda row: row["sensitivity"][0])
    return f"Studies with {worst['class']} are flagged least: {worst['sensitivity'][0]:.2f} of {worst['studies']}."


def _false_studies(told: Mapping[str, Any]) -> str:
    found = _extreme(told, "false_study_rate", lambda row: row["studies"] - row["with_lesion"], max)
    return f"Studies without a lesion are flagged most where {found}." if found else ""


def _point(told: Mapping[str, Any]) -> str:
    point = told["operating_point"]
    there = point["sensitivity_there"]
    if point["hindsight"] is None or there is None or point["hindsight"] <= point["shipped"]:
        return ""
    return (
        f"The shipped point {point['shipped']:.3f} was chosen on other studies; here the budget would need"
        f" {point['hindsight']:.3f}, at a sensitivity of {there:.3f}."
    )


def _extreme(
    told: Mapping[str, Any],
    key: str,
    cases: Callable[[Row], int],
    worst: Callable[..., tuple[float, str] | None],
) -> str:
    """The group with the worst figure, of those with FEW cases or more, where groups of a table differ."""
    found: list[tuple[float, str]] = []
    for name, rows in told["subgroups"].items():
        values = [
            (row[key], f"{name} is {row['class']} ({row[key]:.2f} of {cases(row)})")
            for row in _enough(rows, key, cases)
        ]
        if len({value for value, _ in values}) > 1:
            found += values
    one = worst(found, default=None)
    return "" if one is None else one[1]


def _enough(rows: Iterable[Row], key: str, cases: Callable[[Row], int]) -> list[Row]:
    return [row for row in rows if cases(row) >= FEW and row[key] is not None and row[key] == row[key]]


SAY: Mapping[str, Sequence[Callable[[Mapping[str, Any]], str]]] = {
    "study_auc": (_missed_studies, _false_studies),
    "false_study_rate": (_false_studies, _point),
    "lesion_recall_2ml": (_missed_lesions,),
    "dice": (_hardly_marked, _dice_group),
}
