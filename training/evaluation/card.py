"""The model card: Markdown, written from the same account as the report. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation.account import KEYS, MEANING, learned_no_real_bleed, small
from training.evaluation.weakness import why
from training.phantom.realism import card_lines

TASK = (
    "axial non-contrast head CT: probabilities of any lesion, of intraparenchymal, subdural or epidural, subarachnoid"
    " and intraventricular bleeding and of a mass; a segmentation of these five"
)
AGREEMENT = (
    "One slice does not flag a study: neighbouring slices must agree (`worker/flagging`). The figures of studies use"
    " that very rule; figures of images are of single slices."
)
MASK = {
    True: "The brain mask was asked as `worker/scoring` asks it: slices without a brain are refused, which counts as"
    " not raised, and what is marked outside the head counts for nothing. Tags are taken to say that this is a head.",
    False: "The brain mask was **not** asked (`--no-brain-mask`). By default the service asks (`scoring.brain_mask`),"
    " refuses slices without a brain and leaves out what is marked outside the head.",
}
DEPENDENT = (
    "A scan that anybody looked at while the recipe was chosen, or that lent slices to learn from, is no independent"
    " evidence, whatever it shows here. `ge_head` was looked at throughout."
)
LIMITS = (
    "Phantom figures do not predict figures on patients.",
    "Chronic (dark) subdurals, ischaemia, fractures, and bleeding outside the brain's coverings are not its findings.",
    "Children, contrast-enhanced, coronal and sagittal images are out of scope; scoring refuses what it recognises.",
    "Phantoms show metal, motion and post-operative heads crudely or not at all.",
)
SYNTHETIC_LIMITS = (
    "It has learned no bleed of a patient's, only drawn ones.",
    "Probabilities are calibrated on phantoms with their share of lesions. Among patients they are too high.",
)


def card(account: Mapping[str, Any]) -> str:
    """The whole card."""
    run = account["run"]
    lines = [
        f"# Model card: {run['model']}",
        "",
        f"**{account['notice']}** It decides in which order studies are read, never whether one is read.",
        "",
        _written(run),
        "",
        MASK[run["brain_mask"]],
        "",
        *_facts(account),
        *_labelled("S", "synthetic, held out: other seeds, and another lesion or scanner family", account["S"]),
        *_real(account["R"]),
        *_labelled("L", "real and labelled", account["L"]),
        *card_lines(account.get("realism")),
        "## What is known to be weak",
        "",
        *[f"- {line}" for line in (*_weak(account["S"]), *_learned(run["trained_on"]), *LIMITS)],
        "",
        "## How a study becomes flagged",
        "",
        AGREEMENT,
        "",
    ]
    return "\n".join(lines)


def _written(run: Mapping[str, Any]) -> str:
    of = f"sha256 `{run['sha256'][:16]}…`, commit {run['commit']}"
    return f"Written by `{run['command']}` on {run['date']} from this very model ({of}). Do not edit: write it again."


def _facts(account: Mapping[str, Any]) -> list[str]:
    points = ", ".join(f"{label} {value:.3f}" for label, value in account["thresholds"].items())
    return [
        "| | |",
        "|---|---|",
        f"| task | {TASK} |",
        "| input | `HU` FP16 [N, rows, columns] at native size, `PIXEL_SPACING` FP32 [N, 2] in mm |",
        "| output | `PROBABILITIES` FP32 [N, 6]; `SEGMENTATION` FP32 [N, 5, S, S] |",
        f"| operating points | {points} |",
        f"| training data | {_trained_on(account['run']['trained_on'])} |",
        "",
    ]


def _trained_on(told: str) -> str:
    """What the model says of itself; of our own models more is known."""
    if told == "synthetic":
        return "phantoms made by `training/phantom/`; no patient data"
    if told.startswith("synthetic"):
        return f"{told} (drawn by `training/phantom/`; whose slices: `docs/training.md`)"
    return told or "not said"


def _learned(trained_on: str) -> tuple[str, ...]:
    """What follows from what it learned."""
    if learned_no_real_bleed(trained_on):
        return SYNTHETIC_LIMITS
    said = f"It learned from: {trained_on}." if trained_on else "What it learned from is not said."
    return (
        f"{said} On scanners and patients unlike those its figures are not known.",
        "Probabilities hold for the share of lesions it was calibrated on. Where lesions are rarer they are too high.",
    )


def _labelled(letter: str, title: str, told: Mapping[str, Any] | None) -> list[str]:
    lines = [f"## Tier {letter}: {title}", ""]
    if not told:
        return [*lines, "Not measured: none was given.", ""]
    lines += [_count_line(told["counted"]), "", *_figures(told), ""]
    if letter == "S":
        lines += [*_aims(told["aims"]), ""]
    return [*lines, *_lesions(told), *_subgroups(told), *_robust(told), _calibration_line(told), ""]


def _count_line(c: Mapping[str, int]) -> str:
    studies = f"{c['studies']} studies ({c['with_lesion']} with a lesion)"
    line = f"{studies}, {c['slices']} slices, {c['lesions_2ml']} lesions from 2 ml up."
    if c["refused_slices"]:
        line += f" {c['refused_slices']} slices were refused, {c['refused_with_lesion']} of them with a lesion."
    return line + (" So few studies say little." if small(c) else "")


def _calibration_line(told: Mapping[str, Any]) -> str:
    error, tempered = told["network"]["calibration_error"][0], told["calibration"].get("error_tempered")
    line = f"Calibration error {_n(error)} ({_n(tempered)} with temperature scaling fitted on other patients)."
    return f"{line} {told['abstained']['studies']} studies were not scored."


def _figures(told: Mapping[str, Any]) -> list[str]:
    names = list(told["baselines"])
    lines = [
        f"| figure | network (95 % interval) | {' | '.join(names)} | what it means |".replace("|  |", "|"),
        "|---|---|" + "---|" * len(names) + "---|",
    ]
    for key in KEYS:
        baselines = "".join(f" {_n(told['baselines'][name][key])} |" for name in names)
        lines.append(f"| {key} | {_span(told['network'][key])} |{baselines} {MEANING[key]} |")
    return [*lines, "", "Baselines' operating points are set in hindsight on these very studies, which favours them."]


def _aims(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    words = {True: "met", False: "**not met**"}
    told = [f"- {row['figure']} {row['aim']}: {_n(row['told'])}, {words[row['met']]}" for row in rows]
    return ["Aims:", "", *told]


def _lesions(told: Mapping[str, Any]) -> list[str]:
    if not told["lesions"]["kind"]:
        return []
    lines = ["| lesions | number | found | from 2 ml | found |", "|---|---|---|---|---|"]
    for name, rows in told["lesions"].items():
        lines += [f"| {name}: {row['class']} | {_counts(row)} |" for row in rows]
    return [*lines, ""]


def _counts(row: Mapping[str, Any]) -> str:
    return f"{row['lesions']} | {_n(row['recall'])} | {row['from_2_ml']} | {_n(row['recall_2ml'])}"


def _subgroups(told: Mapping[str, Any]) -> list[str]:
    if not told["subgroups"]:
        return []
    lines = ["| subgroup | studies | image AUC | sensitivity | false studies |", "|---|---|---|---|---|"]
    for name, rows in told["subgroups"].items():
        for row in rows:
            figures = " | ".join(_n(row[key]) for key in ("image_auc", "sensitivity", "false_study_rate"))
            lines.append(f"| {name}: {row['class']} | {row['studies']} | {figures} |")
    return [*lines, ""]


def _robust(told: Mapping[str, Any]) -> list[str]:
    if not told["robustness"]:
        return []
    lines = [
        f"| shift (first {told['shifted_studies']} studies) | image AUC | sensitivity | false studies |",
        "|---|---|---|---|",
    ]
    for name, row in told["robustness"].items():
        figures = " | ".join(_n(row[key]) for key in ("image_auc", "sensitivity", "false_study_rate"))
        lines.append(f"| {name} | {figures} |")
    return [*lines, ""]


def _real(told: Mapping[str, Any]) -> list[str]:
    lines = ["## Tier R: real scans without labels", ""]
    if not told:
        return [*lines, "Not measured: none was given.", ""]
    lines += [
        DEPENDENT,
        "",
        "| scans | reader | studies | flagged | slices | refused | raised | highest | not scored |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for place, one in told.items():
        refused = one["abstained"]["studies"]
        lines += [f"| {place} | {reader} | {_raised(r)} | {refused} |" for reader, r in one["readers"].items()]
    return [*lines, ""]


def _raised(r: Mapping[str, Any]) -> str:
    counts = " | ".join(
        str(r[key]) for key in ("studies", "flagged_studies", "slices", "refused_slices", "raised_slices")
    )
    return f"{counts} | {_n(r['highest'])}"


def _weak(told: Mapping[str, Any] | None) -> list[str]:
    """Written from the figures: aims that are missed, and what is found least."""
    if not told:
        return []
    missed = [row for row in told["aims"] if not row["met"]]
    lines = [
        f"Below its aim: {row['figure']} is {_n(row['told'])}, aimed at {row['aim']}. {why(row['figure'], told)}"
        for row in missed
    ]
    network, threshold = told["network"], told["baselines"].get("HU threshold")
    if threshold and not _surely_better(network["image_auc"][1], threshold["image_auc"]):
        lines.append("On slices it is not surely better than an HU threshold.")
    kinds = [row for row in told["lesions"]["kind"] if row["from_2_ml"] and row["recall_2ml"] < 0.8]
    for row in sorted(kinds, key=lambda row: row["recall_2ml"]):
        found = f"{_n(row['recall_2ml'])} (n = {row['from_2_ml']})"
        lines.append(f"Of {row['class']} lesions from 2 ml up it finds {found}.")
    return lines


def _surely_better(lowest: float | None, baseline: float | None) -> bool:
    return lowest is not None and baseline is not None and lowest > baseline


def _n(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def _span(three: Sequence[float]) -> str:
    return f"{_n(three[0])} ({_n(three[1])}–{_n(three[2])})"
