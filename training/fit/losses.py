"""What a fit minimises: cross-entropy of labels and pixels, and soft Dice; only where the truth is said."""

from __future__ import annotations

import torch
from monai.losses.dice import DiceLoss
from monai.losses.focal_loss import FocalLoss
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from training.data.study import GRAZED

Answers = tuple[Tensor, Tensor]  # logits (N, 6), segmentation logits (N, 5, S, S)
SEGMENTATION_WEIGHT = 15.0  # pixels are mostly empty: their mean loss is small beside the six labels'
DICE_WEIGHT = 0.6
DICE_SMOOTH = 20.0  # pixels
POSITIVE_PIXEL_WEIGHT = 5.0
FOCUS = 2.0  # gamma of the focal loss
HEAVIEST = 10.0  # no rare label weighs more than this


def label_weights(labels: Tensor) -> Tensor:
    """(6,) how much a present label weighs, so that present and absent ones weigh the same. labels (n, 6)."""
    there, away = (labels == 1).sum(0), (labels == 0).sum(0)
    return (away / there.clamp(min=1)).clamp(1.0, HEAVIEST)


class LesionLoss(nn.Module):
    """Answers, labels (N, 6), masks (N, 5, S, S), bleed (N, 1, S, S), said (N, 6) → a scalar.

    Labels of 0.5 and NaN are not asked. Masks count where `said` does: its first column is of `bleed`, every marked
    pixel of whichever kind, which is asked where the kinds are not said.
    """

    weights: Tensor | None

    def __init__(self, *, focal: bool = False, weights: Tensor | None = None) -> None:
        """`weights`: of present labels, from `label_weights`."""
        super().__init__()
        self.register_buffer("weights", weights, persistent=False)
        self._focal = FocalLoss(gamma=FOCUS, reduction="none") if focal else None
        self._dice = DiceLoss(batch=True, smooth_nr=DICE_SMOOTH, smooth_dr=DICE_SMOOTH)

    def forward(self, answers: Answers, labels: Tensor, masks: Tensor, bleed: Tensor, said: Tensor) -> Tensor:
        """The sum of the three."""
        logits, segmentation = answers
        kinds = said[:, 1:, None, None]
        shown = torch.sigmoid(segmentation) * kinds
        dice: Tensor = self._dice(shown, masks * kinds)
        loss = self.of_labels(logits, labels) + DICE_WEIGHT * dice
        loss = loss + SEGMENTATION_WEIGHT * (self._pixels(segmentation, masks) * kinds).mean()
        unnamed = (said[:, 0] == 1) & (said[:, 1:] == 0).any(1)
        if bool(unnamed.any()):  # somewhere, of no said kind: the strongest channel answers for all
            strongest = segmentation[unnamed].amax(1, keepdim=True)
            loss = loss + SEGMENTATION_WEIGHT * self._pixels(strongest, bleed[unnamed]).mean() / len(said)
        return loss

    def of_labels(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean over all labels, those not asked counting nothing."""
        asked = (labels != GRAZED) & ~torch.isnan(labels)
        truth = torch.where(asked, labels, 0.0)
        if self._focal is not None:
            each: Tensor = self._focal(logits, truth)
        else:
            each = binary_cross_entropy_with_logits(logits, truth, pos_weight=self.weights, reduction="none")
        return (each * asked).mean()

    def _pixels(self, segmentation: Tensor, masks: Tensor) -> Tensor:
        if self._focal is not None:
            focal: Tensor = self._focal(segmentation, masks)
            return focal * (1 + (POSITIVE_PIXEL_WEIGHT - 1) * masks)
        weight = 1 + (POSITIVE_PIXEL_WEIGHT - 1) * masks
        return binary_cross_entropy_with_logits(segmentation, masks, weight=weight, reduction="none")


def distilled(answers: Answers, taught: Answers, temperature: float = 2.0) -> Tensor:
    """Cross-entropy with the teacher's softened answers, on labels and pixels."""
    loss = torch.zeros((), device=answers[0].device)
    for mine, theirs, weight in zip(answers, taught, (1.0, SEGMENTATION_WEIGHT), strict=True):
        soft = torch.sigmoid(theirs / temperature)
        loss = loss + weight * temperature * binary_cross_entropy_with_logits(mine / temperature, soft)
    return loss
