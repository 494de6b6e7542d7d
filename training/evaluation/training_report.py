"""The report of a training run as Markdown. Pure: figures in, text out."""

from __future__ import annotations

import math
from typing import Any

NOTICE = (
    "Not for diagnosis. The figures of tier S say how well the network reads bleeds that were drawn, not how well it"
    " reads patients; only tiers R and L are of what a scanner saw."
)


def markdown(figures: dict[str, Any]) -> str:
    """The whole report."""
    run = figures["run"]
    lines = [
        f"# {run['model']}: training report",
        "",
        f"Trained on: **{run['trained_on']}**. {NOTICE}",
        "",
        f"- date: {run['date']}; command: `{run['command']}`; commit: {run['commit']}",
        f"- machine: {run['machine']}; seed {run['seed']}; {_fits(run)}",
        _size_line(run),
        _threshold_line(figures["thresholds"], run["false_alarm_share"]),
        _baseline_line(figures["blood_from_hu"]),
        "",
        "## Tier S: synthetic, held out",
        "",
    ]
    for name, title in (
        ("hard", "Hard phantoms, unseen seeds"),
        ("held_out", "Unseen lesion kinds and scanner family"),
        ("planted", "Real slices of one bleed-free scan (`--real-dicom`), with bleeds of ours planted in half of them"),
    ):
        if name in figures["synthetic"]:
            lines += _set_lines(title, figures["synthetic"][name])
    lines += _real_lines(figures.get("real", {}))
    lines += _labelled_lines(figures.get("labelled"))
    lines += ["", "![ROC](head_ct_lesion_roc.png)", "", "![Slices](head_ct_lesion_slices.png)", ""]
    return "\n".join(lines)


def _fits(run: dict[str, Any]) -> str:
    """The first fit as well, where this is a second one."""
    told = f"{run['epochs']} epochs, {run['fit_s']:.0f} s of fitting"
    before = run["first"]
    return told if before is None else f"{before['epochs']} epochs, {before['fit_s']:.0f} s of fitting, then {told}"


def _size_line(run: dict[str, Any]) -> str:
    size = f"parameters: {run['parameters']:,}; ONNX {run['onnx_bytes'] / 1e6:.2f} MB"
    sources = (
        ("training_slices", f"of {run['training_heads']} phantom heads"),
        ("planted_slices", f"pictures of {run['hosts']} real slices without a bleed"),
        ("real_slices", f"of {run['real_studies']} real studies"),
    )
    return f"- {size}; learned from slices: {', '.join(f'{run[key]} {of}' for key, of in sources if run[key])}"


def _threshold_line(thresholds: dict[str, float], share: float) -> str:
    told = ", ".join(f"{label} {value:.3f}" for label, value in thresholds.items())
    return f"- thresholds: {told} (validation phantoms; *any* at a false-alarm share of {share:g})"


def _baseline_line(blood_from_hu: float) -> str:
    region = f"largest connected region of {blood_from_hu:.0f}–95 HU inside the skull"
    return f"- HU-threshold baseline: {region}, lower bound tuned on the same validation slices"


def _count_line(s: dict[str, Any]) -> str:
    left_out = f"{s['left_out']} grazed by one (under 40 mm²) left out"
    said = "Intervals: 95 %, bootstrap over heads."
    if s["one_patient"]:
        said = "No intervals: pictures of one patient do not say how patients differ."
    return f"{s['slices']} slices, {s['with_lesion']} with a lesion; {left_out}. {said}"


def _set_lines(title: str, s: dict[str, Any]) -> list[str]:
    return [
        f"### {title}",
        "",
        _count_line(s),
        "",
        "| figure | network | HU threshold |",
        "|---|---|---|",
        f"| image AUC | {_interval(s['auc'])} | {_interval(s['auc_hu_threshold'])} |",
        f"| gain over the HU threshold | {_interval(s['auc_gain'])} | |",
        f"| sensitivity at the threshold | {s['sensitivity']:.3f} | {s['sensitivity_hu_threshold_same_share']:.3f} |",
        f"| false-alarm share | {s['false_alarm_share']:.3f} | the same |",
        f"| calibration error (any) | {s['calibration_error']:.3f} | |",
        f"| Dice, slices with a lesion | {s['dice_of_lesion_slices']:.3f} | |",
        "",
        "Label AUC: " + ", ".join(f"{k} {v:.3f}" for k, v in s["label_auc"].items()) + ".",
        "",
        "Slices flagged, by lesion area: "
        + ", ".join(f"{name} {share:.2f} (n={count})" for name, count, share in s["recall_by_area"])
        + ".",
        "",
    ]


def _interval(three: list[float]) -> str:
    value, low, high = three
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.3f}–{high:.3f})"


def _real_lines(real: dict[str, Any]) -> list[str]:
    lines = ["## Tier R: real slices without a bleed, false alarms", ""]
    if not real:
        return [*lines, "No real scan was given (`--real-dicom`, `--real-png`): not measured."]
    lines += ["| scan | slices | *any* raised | any label raised | highest *any* |", "|---|---|---|---|---|"]
    for name, r in real.items():
        lines.append(f"| {name} | {r['slices']} | {r['raised']} | {r['any_label']} | {r['highest']:.3f} |")
    return [*lines, "", "Of slices: whether a study is flagged, its card says."]


def _labelled_lines(told: dict[str, Any] | None) -> list[str]:
    lines = ["", "## Tier L: real and labelled, held out", ""]
    if told is None:
        return [*lines, "Not measured: the recipe names no labelled data (`[data]`)."]
    if not told["studies"]:
        return [*lines, "Not measured: the data have no part `test` that could be scored."]
    baseline = told["threshold_baseline"]
    count = f"{told['studies']} studies, {told['with_lesion']} with a bleed; {told['refused']} could not be scored"
    lines += [
        f"The part `test` of the recipe's data: {count}. None was learned from or calibrated on.",
        "",
        "| figure | network | HU threshold |",
        "|---|---|---|",
    ]
    return lines + [f"| {key} | {_number(told[key])} | {_number(baseline[key])} |" for key in baseline]


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def without_nan(value: Any) -> Any:
    """The same figures with null where one could not be measured: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
