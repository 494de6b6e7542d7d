"""The same studies, worse: noise, contrast, blur, geometry, and an adversary. Pure: studies in, studies out.

The adversary is FGSM in HU: each pixel moves by at most `eps` against the truth, along the sign of the gradient of the
very graph that is served, followed in PyTorch. A graph that cannot be followed meets random signs instead, which is a
far weaker opponent; the report says which it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import nn

from contracts.tensors import HU_HIGH, HU_LOW
from training.data.study import Study
from training.evaluation.judging import slice_labels

EPS_HU = (1.0, 3.0)  # a third of a soft kernel's noise, and all of it
TISSUE_HU = (-200.0, 300.0)  # an adversary moves tissue, not air or bone


@dataclass(frozen=True)
class Shift:
    """One way to be worse."""

    name: str
    change: Callable[[Study], Study]


def shifts(network: nn.Module | None) -> list[Shift]:
    """What every report asks; `network`: HU, spacing → logits, with gradients."""
    plain = [
        Shift("as it is", lambda study: study),
        Shift("noise, 5 HU", lambda study: noisy(study, 5.0)),
        Shift("noise, 12 HU", lambda study: noisy(study, 12.0)),
        Shift("contrast, +8 %", lambda study: _hu(study, study.hu * 1.08)),
        Shift("contrast, −8 %", lambda study: _hu(study, study.hu * 0.92)),
        Shift("offset, +4 HU", lambda study: _hu(study, study.hu + 4.0)),
        Shift("offset, −4 HU", lambda study: _hu(study, study.hu - 4.0)),
        Shift("blur, 1.5 mm", lambda study: blurred(study, 1.5)),
        Shift("turned by 10°", lambda study: turned(study, 10.0)),
    ]
    name = "random signs" if network is None else "FGSM"
    return plain + [
        Shift(f"{name}, {eps:g} HU", lambda study, eps=eps: against(study, network, eps))  # type: ignore[misc]  # the default binds eps
        for eps in EPS_HU
    ]


def _hu(study: Study, hu: NDArray[Any]) -> Study:
    return replace(study, hu=np.clip(np.rint(hu), HU_LOW, HU_HIGH).astype(np.int16))


def noisy(study: Study, sigma_hu: float) -> Study:
    """White noise, the same every time."""
    rng = np.random.default_rng([len(study.hu), 12])
    return _hu(study, study.hu + rng.normal(0, sigma_hu, study.hu.shape))


def blurred(study: Study, sigma_mm: float) -> Study:
    """Within the slice."""
    sigma = (0.0, sigma_mm / study.spacing_mm[1], sigma_mm / study.spacing_mm[2])
    return _hu(study, ndimage.gaussian_filter(study.hu.astype(np.float32), sigma))


def turned(study: Study, degrees: float) -> Study:
    """The head turned in the plane, truth with it."""
    hu = ndimage.rotate(study.hu.astype(np.float32), degrees, (1, 2), reshape=False, order=1, cval=float(HU_LOW))
    masks = study.truth.masks
    if masks is not None:
        masks = ndimage.rotate(masks, degrees, (1, 2), reshape=False, order=0)
    return replace(_hu(study, hu), truth=replace(study.truth, masks=masks))


def against(study: Study, network: nn.Module | None, eps_hu: float) -> Study:
    """FGSM on *any* of every slice whose truth is known; slices that are not asked stay."""
    labels = slice_labels(study)[:, 0]
    rng = np.random.default_rng([len(study.hu), 13])
    moved = study.hu.astype(np.float32)
    for nth in np.flatnonzero(np.isin(labels, (0.0, 1.0))):
        sign = rng.choice([-1.0, 1.0], moved[nth].shape)
        if network is not None:
            sign = -np.sign(_gradient(network, moved[nth], study.spacing_mm[1:])) * (1 if labels[nth] else -1)
        low, high = TISSUE_HU
        moved[nth] += eps_hu * sign * ((moved[nth] > low) & (moved[nth] < high))
    return _hu(study, moved)


def _gradient(network: nn.Module, hu: NDArray[np.float32], spacing_mm: tuple[float, ...]) -> NDArray[np.float32]:
    """Of the logit of *any* by HU (H, W)."""
    asked = torch.from_numpy(hu[None].copy()).requires_grad_()
    spacing = torch.tensor([spacing_mm], dtype=torch.float32)
    (gradient,) = torch.autograd.grad(network(asked, spacing)[0, 0], asked)
    return np.asarray(gradient[0].numpy(), np.float32)
