"""The report of a training run as Markdown. Pure: figures in, text out."""

from __future__ import annotations

import math
from typing import Any

NOTICE = (
    "Trained and evaluated on **synthetic phantoms**. Not for diagnosis. The figures of tier S say how well the network"
    " reads phantoms, not how well it reads patients; the false alarms of tier R are the only figures from real pixels."
)


def markdown(figures: dict[str, Any]) -> str:
    """The whole report."""
    run = figures["run"]
    lines = [
        f"# {run['model']}: training report",
        "",
        NOTICE,
        "",
        f"- date: {run['date']}; command: `{run['command']}`; commit: {run['commit']}",
        f"- machine: {run['machine']}; seed {run['seed']}; {run['epochs']} epochs, {run['fit_s']:.0f} s of fitting",
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
    lines += _series_lines(figures.get("series"))
    lines += _real_lines(figures.get("real", {}))
    lines += ["", "![ROC](head_ct_lesion_roc.png)", "", "![Slices](head_ct_lesion_slices.png)", ""]
    return "\n".join(lines)


def _size_line(run: dict[str, Any]) -> str:
    size = f"parameters: {run['parameters']:,}; ONNX {run['onnx_bytes'] / 1e6:.2f} MB"
    hosts = f", then {run['planted_slices']} pictures of {run['hosts']} real slices as well" if run["hosts"] else ""
    return f"- {size}; training slices {run['training_slices']} of {run['training_heads']} phantom heads{hosts}"


def _threshold_line(thresholds: dict[str, float], share: float) -> str:
    told = ", ".join(f"{label} {value:.3f}" for label, value in thresholds.items())
    return f"- thresholds: {told} (validation phantoms; *any* at a false-alarm share of {share:g})"


def _baseline_line(blood_from_hu: float) -> str:
    region = f"largest connected region of {blood_from_hu:.0f}–95 HU inside the skull"
    return f"- HU-threshold baseline: {region}, lower bound tuned on the same validation slices"


def _count_line(s: dict[str, Any]) -> str:
    left_out = f"{s['left_out']} grazed by one (under 40 mm²) left out"
    return f"{s['slices']} slices, {s['with_lesion']} with a lesion; {left_out}. Intervals: 95 %, bootstrap over heads."


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
    return f"{three[0]:.3f} ({three[1]:.3f}–{three[2]:.3f})"


def _series_lines(s: dict[str, Any] | None) -> list[str]:
    if s is None:
        return []
    found = f"{s['flagged_with_lesion']} of {s['with_lesion']} with a lesion"
    false = f"{s['flagged_without']} of {s['studies'] - s['with_lesion']} without"
    rule = "neighbouring 5 mm slices, flagged where two in a row reach a label's threshold"
    return ["### Whole studies, unseen seeds", "", f"{s['studies']} studies of {rule}: {found}, {false}.", ""]


def _real_lines(real: dict[str, Any]) -> list[str]:
    lines = ["## Tier R: real scans without a bleed, false alarms", ""]
    if not real:
        return [*lines, "No real scan was given (`--real-dicom`, `--real-png`): not measured."]
    lines += [
        "| scan | slices | *any* raised | any label raised | two in a row | highest *any* |",
        "|---|---|---|---|---|---|",
    ]
    for name, r in real.items():
        row = "yes" if r["study_flagged"] else "no"
        lines.append(f"| {name} | {r['slices']} | {r['flagged']} | {r['any_label']} | {row} | {r['highest']:.3f} |")
    return [*lines, "", "Tier L (real, labelled): none at hand."]


def without_nan(value: Any) -> Any:
    """The same figures with null where one could not be measured: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
