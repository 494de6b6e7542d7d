"""Where the network looked: segmentation, Grad-CAM, integrated gradients, Shapley values of regions (Captum).

Gradients say which pixels move the answer. Shapley values need no gradient: they are for graphs that PyTorch cannot
follow, and show regions rather than pixels; for our own graphs they add nothing but time, so they are asked for by
name. LIME is left out: on the same regions it is the same regression with a worse founded weight.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import (  # type: ignore[import-untyped]  # publishes no types
    IntegratedGradients,
    KernelShap,
    LayerGradCam,
    LayerGradientXActivation,
)
from numpy.typing import NDArray
from scipy import ndimage
from skimage.segmentation import slic
from torch import Tensor

from training.evaluation.grid import Grid, centres_mm, on_slice
from training.explaining.subject import Subject

METHODS = ("segmentation", "gradcam", "gradcam-averaged", "integrated-gradients", "shap")
BASELINE_MM = 9.0  # the path of integrated gradients begins at the head blurred this far: nothing local left
STEPS = 24
SMOOTH_MM = 2.0  # single pixels are no explanation
REGIONS, ROUNDS = 48, 320  # of Shapley values: regions of about 20 mm, and how many mixtures of them are asked
WINDOW_HU = (-20.0, 120.0)  # in which regions are drawn
HEAD_FROM_HU = -300.0

Picture = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Heat:
    """values (H, W) on the slice's own pixels; `signed`: below zero speaks against the label."""

    method: str
    values: Picture
    signed: bool
    unit: str


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice to explain. hu (H, W), spacing in mm of rows and columns."""

    hu: NDArray[np.int16]
    spacing_mm: tuple[float, float]

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """As the network takes them."""
        return torch.from_numpy(self.hu.astype(np.float32))[None], torch.tensor([self.spacing_mm], dtype=torch.float32)


def segmentation(one: Slice, values: NDArray[np.float32], grid: Grid, channel: int | None) -> Heat:
    """The model's own map (c, S, S), of one kind, or the strongest of all."""
    chosen = values.max(0, keepdims=True) if channel is None else values[channel : channel + 1]
    return Heat("segmentation", _laid(one, chosen, grid), signed=False, unit="probability")


def gradcam(subject: Subject, one: Slice, label: int, *, averaged: bool = False) -> Heat:
    """The layer's maps times the gradient of the label's logit, summed; what speaks for the label only."""
    method = LayerGradCam if averaged else LayerGradientXActivation
    told = method(subject.network, subject.layer).attribute(
        one.tensors[0].requires_grad_(), target=label, additional_forward_args=(one.tensors[1],)
    )
    values = np.maximum(told[0].detach().numpy().sum(0, keepdims=True), 0)
    grid = Grid(values.shape[1], subject.grid.pitch_mm * subject.grid.size / values.shape[1])
    name = "gradcam-averaged" if averaged else "gradcam"
    return Heat(name, _scaled(_laid(one, values, grid)), signed=False, unit="share of the highest")


def integrated_gradients(subject: Subject, one: Slice, label: int) -> Heat:
    """From the blurred head to the head: what each pixel adds to the label's logit, smoothed."""
    hu, spacing = one.tensors
    told = IntegratedGradients(subject.network).attribute(
        hu, blurred(one), target=label, additional_forward_args=(spacing,), n_steps=STEPS, internal_batch_size=8
    )
    values = ndimage.gaussian_filter(told[0].detach().numpy(), [SMOOTH_MM / mm for mm in one.spacing_mm])
    return Heat("integrated-gradients", _scaled(values), signed=True, unit="share of the highest")


def shapley(answer: Callable[[NDArray[np.float32]], NDArray[np.float64]], one: Slice, seed: int = 0) -> Heat:
    """Regions of the head shown or blurred away: what each adds to the label. `answer`: slices (n, H, W) → logits."""
    regions = _regions(one)
    names = torch.from_numpy(regions)[None]
    torch.manual_seed(seed)
    told = KernelShap(lambda hu: torch.from_numpy(answer(hu.detach().numpy()))).attribute(
        one.tensors[0], blurred(one), feature_mask=names, n_samples=ROUNDS, perturbations_per_eval=8
    )
    return Heat("shap", _scaled(told[0].detach().numpy().astype(np.float32)), signed=True, unit="share of the highest")


def blurred(one: Slice) -> Tensor:
    """The same head without anything local in it."""
    soft = ndimage.gaussian_filter(one.hu.astype(np.float32), [BASELINE_MM / mm for mm in one.spacing_mm])
    return torch.from_numpy(soft)[None]


def _regions(one: Slice) -> NDArray[np.int64]:
    """0 is everything outside the head."""
    low, high = WINDOW_HU
    head = ndimage.binary_fill_holes(one.hu > HEAD_FROM_HU)
    window = np.clip((one.hu - low) / (high - low), 0, 1).astype(np.float32)
    if not head.any():
        return np.zeros(one.hu.shape, np.int64)
    return np.asarray(
        slic(window, REGIONS, compactness=0.3, mask=head, channel_axis=None, start_label=1, sigma=1.0), np.int64
    )


def _laid(one: Slice, values: NDArray[np.float32], grid: Grid) -> Picture:
    centre = centres_mm(one.hu[None], one.spacing_mm)[0]
    shape = (one.hu.shape[0], one.hu.shape[1])
    return on_slice(np.asarray(values, np.float32), grid, centre, one.spacing_mm, shape)[0]


def _scaled(values: NDArray[np.float32]) -> Picture:
    highest = float(np.abs(values).max())
    return np.asarray(values / highest if highest else values, np.float32)


def share_inside(heat: Heat, mask: NDArray[np.bool_]) -> float:
    """How much of the heat that speaks for the label lies on a mask; its share of the area is what chance gives."""
    positive = np.maximum(heat.values, 0)
    total = float(positive.sum())
    return float(positive[mask].sum()) / total if total else 0.0
