"""The explanation as one picture: the slice, and beside it each heat laid over it with its colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.explaining.methods import Heat, Slice

NOTICE = "Not for diagnosis; trained on synthetic data."
WINDOW_HU = (0.0, 80.0)
SHOWN_FROM = 0.08  # of the scale: fainter heat is left clear, so that the slice shows
OPACITY = 0.75
TITLES = {
    "segmentation": "Segmentation",
    "gradcam": "Grad-CAM",
    "gradcam-averaged": "Grad-CAM, averaged",
    "integrated-gradients": "Integrated gradients",
    "shap": "Shapley values of regions",
}


def draw(one: Slice, heats: Sequence[Heat], caption: str, file: Path, truth: NDArray[np.bool_] | None = None) -> None:
    """Write a PNG; `truth` (H, W) is outlined where it is known."""
    figure = Figure(figsize=(3.6 * (len(heats) + 1), 4.5), dpi=110, layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(heats) + 1, squeeze=False)[0]
    _slice(axes[0], one, truth)
    axes[0].set_title("Slice, brain window")
    for axis, heat in zip(axes[1:], heats, strict=True):
        _slice(axis, one, truth)
        _heat(figure, axis, heat)
    figure.suptitle(caption, fontsize=10)
    figure.supxlabel(NOTICE, fontsize=9, color="#a02020")
    figure.savefig(file, format="png")


def _slice(axis: Axes, one: Slice, truth: NDArray[np.bool_] | None) -> None:
    low, high = WINDOW_HU
    axis.imshow(one.hu, cmap="gray", vmin=low, vmax=high, aspect=one.spacing_mm[0] / one.spacing_mm[1])
    if truth is not None and truth.any():
        axis.contour(truth, levels=[0.5], colors=["#50dc50"], linewidths=0.8)
    axis.set_axis_off()


def _heat(figure: Figure, axis: Axes, heat: Heat) -> None:
    low = -1.0 if heat.signed else 0.0
    strength = np.clip((np.abs(heat.values) - SHOWN_FROM) / 0.25, 0, OPACITY)
    colours = mpl.colormaps["coolwarm" if heat.signed else "inferno"]
    limits = Normalize(low, 1.0)
    scale = ScalarMappable(limits, colours)
    axis.imshow(heat.values, norm=limits, cmap=colours, alpha=strength, aspect=axis.get_aspect())
    axis.set_title(TITLES[heat.method])
    bar = figure.colorbar(scale, ax=axis, orientation="horizontal", fraction=0.05, pad=0.02)
    bar.set_label(f"{heat.unit}; below zero: against" if heat.signed else heat.unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)
