"""Adversarial training: the small change of HU that hurts most (FGSM, Goodfellow 2015; PGD, Madry 2018)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.preprocess import HIGHEST_HU, LOWEST_HU

INSIDE_HU = -300.0  # air is left alone: a scanner's noise there changes no diagnosis


def attacked(
    network: nn.Module, loss_of: Callable[[Tensor], Tensor], image: Tensor, farthest_hu: float, steps: int
) -> Tensor:
    """HU (N, S, S) moved by at most `farthest_hu` inside the head and within CT's range, so that `loss_of` grows.

    One step is FGSM; several are PGD from a start at chance. The network is asked as it will be served (evaluation).
    """
    inside = (image > INSIDE_HU).float()
    change = torch.zeros_like(image)
    if steps > 1:
        change = (torch.rand_like(image) * 2 - 1) * farthest_hu
    step_hu = farthest_hu if steps == 1 else 2.5 * farthest_hu / steps
    was_training = [module.training for module in network.modules()]
    network.eval()
    for _ in range(steps):
        moved = _moved(image, change, inside).requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss_of(moved), moved)
        change = (change + step_hu * slope.sign()).clamp(-farthest_hu, farthest_hu)
    for module, training in zip(network.modules(), was_training, strict=True):
        module.training = training
    return _moved(image, change, inside)


def _moved(image: Tensor, change: Tensor, inside: Tensor) -> Tensor:
    within = (image + change).clamp(LOWEST_HU, HIGHEST_HU)
    return torch.where(inside > 0, within, image).detach()
