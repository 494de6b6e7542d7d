"""The report's plots, as SVG to stand in the page. Pure: figures in, text out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from training.evaluation.figures import pooled
from training.evaluation.judging import Judged
from training.evaluation.measure import Numbers
from training.evaluation.pictures import sheet, tile
from training.evaluation.tiers import Shown

INK, QUIET = "#20242c", "#8a919e"
COLOURS = ("#1f5fbf", "#c2571a", "#2f8f57", "#8a4fb0")
BANDS, SHARES = 120, np.linspace(0, 1, 101)
TILE_PX, ACROSS = 216, 6
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "lesion-triage",  # the same figures give the same file
}
Curve = tuple[str, Numbers, Numbers]


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _one(width: float = 4.1, height: float = 3.5) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    return figure, axes


def study_curves(judged: Mapping[str, Sequence[Judged]]) -> list[Curve]:
    """(reader, truth, score) of studies."""
    known = {name: [one for one in cases if one.case.sick is not None] for name, cases in judged.items()}
    return [
        (name, np.array([float(bool(one.case.sick)) for one in cases]), np.array([one.score for one in cases]))
        for name, cases in known.items()
    ]


def image_curves(judged: Mapping[str, Sequence[Judged]]) -> list[Curve]:
    """(reader, truth, score) of slices."""
    slices = {name: pooled(cases) for name, cases in judged.items()}
    return [(name, told.truth, told.score) for name, told in slices.items()]


def _both_classes(curve: Curve) -> bool:
    return bool(0 < curve[1].sum() < len(curve[1]))


def roc(curves: Sequence[Curve], title: str, mark: float | None = None) -> str:
    """`mark`: the operating point of the first curve."""
    with mpl.rc_context(STYLE):
        figure, axes = _one()
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
        for nth, curve in enumerate(filter(_both_classes, curves)):
            across, up, points = roc_curve(curve[1], curve[2], drop_intermediate=False)
            axes.plot(across, up, color=COLOURS[nth % 4], label=curve[0], linewidth=1.8)
            if nth == 0:
                _band(axes, curve)
                _mark(axes, across, up, points, mark)
        axes.set(xlabel="false alarms (share of clean)", ylabel="sensitivity", title=title, xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower right")
        return _svg(figure)


def _band(axes: Axes, curve: Curve) -> None:
    """Of redrawn studies or slices: 95 %."""
    rng, (_, truth, score) = np.random.default_rng(3), curve
    drawn = []
    for _ in range(BANDS):
        rows = rng.integers(0, len(truth), len(truth))
        if 0 < truth[rows].sum() < len(rows):
            across, up, _ = roc_curve(truth[rows], score[rows])
            drawn.append(np.interp(SHARES, across, up))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    axes.fill_between(SHARES, low, high, color=COLOURS[0], alpha=0.13, linewidth=0)


def _mark(axes: Axes, across: Numbers, up: Numbers, points: Numbers, at: float | None) -> None:
    if at is not None:
        nth = int(np.flatnonzero(points >= at)[-1])
        axes.plot(across[nth], up[nth], "o", color=COLOURS[0], markersize=6, label="operating point")


def precision_recall(curves: Sequence[Curve], title: str) -> str:
    """Beside the ROC: with few lesions it tells more."""
    with mpl.rc_context(STYLE):
        figure, axes = _one()
        for nth, (name, truth, score) in enumerate(filter(_both_classes, curves)):
            precision, recall, _ = precision_recall_curve(truth, score)
            axes.plot(recall, precision, color=COLOURS[nth % 4], label=name, linewidth=1.8, drawstyle="steps-post")
            if nth == 0:
                axes.axhline(truth.mean(), color=QUIET, linewidth=0.8, linestyle=":")
        axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.02))
        axes.legend(frameon=False, loc="lower left")
        return _svg(figure)


def reliability(told: Mapping[str, Any]) -> str:
    """What was stated against what was true; the size of a point is how many slices it speaks for."""
    with mpl.rc_context(STYLE):
        figure, axes = _one()
        size = 20 + 220 * np.sqrt(np.array(told["count"]) / max(told["count"]))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
        axes.plot(told["stated"], told["true"], color=COLOURS[0], linewidth=1)
        axes.scatter(told["stated"], told["true"], s=size, color=COLOURS[0], alpha=0.7)
        axes.set(xlabel="stated probability", ylabel="share with a lesion", title="Reliability, slices")
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        return _svg(figure)


def scores(cases: Sequence[Judged], threshold: float) -> str:
    """Every study by its score."""
    with mpl.rc_context(STYLE):
        figure, axes = _one(4.1, 2.6)
        bins = np.linspace(0, 1, 21)
        for sick, name, colour in ((False, "without a lesion", COLOURS[2]), (True, "with a lesion", COLOURS[1])):
            told = [max(one.score, 0.0) for one in cases if one.case.sick is sick]
            axes.hist(told, bins.tolist(), color=colour, alpha=0.6, label=name)
        axes.axvline(threshold, color=INK, linewidth=1, linestyle="--")
        axes.set(xlabel="score (dashed: operating point)", ylabel="studies", title="Studies by score")
        axes.legend(frameon=False)
        return _svg(figure)


def bars(rows: Sequence[Mapping[str, Any]], key: str, count: str, title: str) -> str:
    """One bar a class, with its number of cases."""
    with mpl.rc_context(STYLE):
        figure, axes = _one(4.1, 0.9 + 0.34 * max(len(rows), 2))
        names = [f"{row['class']}  (n={row[count]})" for row in rows]
        values = [row[key] or 0.0 for row in rows]  # none where it could not be measured
        axes.barh(names, values, color=COLOURS[0], height=0.6)
        axes.invert_yaxis()
        axes.set(xlim=(0, 1), title=title)
        return _svg(figure)


def robust(told: Mapping[str, Mapping[str, float]]) -> str:
    """Image AUC and false studies under each shift."""
    with mpl.rc_context(STYLE):
        figure, axes = _one(8.4, 0.9 + 0.3 * len(told))
        at = np.arange(len(told))
        axes.barh(
            at - 0.2, [row["image_auc"] or 0.0 for row in told.values()], 0.38, color=COLOURS[0], label="image AUC"
        )
        false = [row["false_study_rate"] or 0.0 for row in told.values()]
        axes.barh(at + 0.2, false, 0.38, color=COLOURS[1], label="false studies")
        axes.set_yticks(at, list(told))
        axes.invert_yaxis()
        axes.set(xlim=(0, 1))
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return _svg(figure)


def contact_sheet(shown: Sequence[Shown], count: int = 18) -> str:
    """Slices with the true outline green and the network's red, as a PNG in a data URL; empty without pictures."""
    chosen = shown[:count]
    if not chosen:
        return ""
    tiles = [_tile(one) for one in chosen]
    captions = [f"{_named(one)}  p {one.probability:.2f}" for one in chosen]
    buffer = io.BytesIO()
    sheet(tiles, captions, ACROSS).save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _named(one: Shown) -> str:
    return "+".join(one.kinds) or ("clean" if one.sick is False else "lesion" if one.sick else "not said")


def _tile(one: Shown) -> Any:
    """Brought to TILE_PX a side, nearest pixel."""
    rows, columns = (np.linspace(0, size - 1, TILE_PX).round().astype(int) for size in one.hu.shape)
    grid = np.ix_(rows, columns)
    return tile(one.hu[grid].astype(np.float32), None if one.truth is None else one.truth[grid], one.guess[grid])
