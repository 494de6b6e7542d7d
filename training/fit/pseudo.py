"""Learning from slices without labels: the averaged network's answers on a slice teach the network on its bent twin."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss

from training.fit.losses import SEGMENTATION_WEIGHT, Answers
from training.fit.options import Pseudo

SURE_THERE, SURE_AWAY = 0.9, 0.05  # lesions are rare: to be sure of their absence is easier
RAMP = 0.25  # of all steps, until the averaged network is worth listening to


def pseudo_loss(kind: Pseudo, answers: Answers, believed: Answers) -> Tensor:
    """`mean_teacher`: squared distance of probabilities (Tarvainen 2017). `threshold`: cross-entropy with answers that
    are sure (Lee 2013, as in FixMatch); what is not sure is not asked.
    """
    loss = torch.zeros((), device=answers[0].device)
    for mine, theirs, weight in zip(answers, believed, (1.0, SEGMENTATION_WEIGHT), strict=True):
        probability = torch.sigmoid(theirs).detach()
        if kind == "mean_teacher":
            loss = loss + weight * mse_loss(torch.sigmoid(mine), probability)
            continue
        sure = (probability >= SURE_THERE) | (probability <= SURE_AWAY)
        truth = (probability >= SURE_THERE).float()
        loss = loss + weight * (binary_cross_entropy_with_logits(mine, truth, reduction="none") * sure).mean()
    return loss


def ramped(share: float) -> float:
    """Weight of the unlabelled slices after this share of all steps."""
    return min(1.0, max(0.0, share / RAMP))
