"""The teacher: MONAI's DynUNet, many times the student's size, for a GPU; it answers what the student answers."""

from __future__ import annotations

import torch
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from training.phantom.lesions import CHANNELS
from training.phantom.render import LABELS
from training.preprocess import WINDOWS_HU

TEACHER_WIDTHS = (48, 96, 192, 320, 320)  # about nine million weights
FEATURES = 27  # beside the channels of the segmentation: what the classifier pools
RARE_LOGIT = -4.5


class Teacher(nn.Module):
    """HU on the served grid (N, S, S) → classification logits (N, 6), segmentation logits (N, 5, S, S)."""

    def __init__(self, widths: tuple[int, ...] = TEACHER_WIDTHS, dropout: float = 0.3) -> None:
        """Widths from the finest (S) to the coarsest level."""
        super().__init__()
        levels = len(widths)
        self.body = DynUNet(
            spatial_dims=2,
            in_channels=len(WINDOWS_HU) + 1,
            out_channels=len(CHANNELS) + FEATURES,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(widths),
            res_block=True,
        )
        self.dropout = nn.Dropout(dropout)
        self.answer = nn.Linear(2 * len(CHANNELS) + 2 * FEATURES, len(LABELS))

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """Windows and the left–right difference in; evidence is pooled as the student's is."""
        image = hu.unsqueeze(1)
        windows = [((image - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU]
        difference = windows[0] - windows[0].flip(3)
        told = self.body(torch.cat([*windows, difference], 1))
        segmentation, features = told[:, : len(CHANNELS)] + RARE_LOGIT, told[:, len(CHANNELS) :]
        smooth = avg_pool2d(segmentation, 4, stride=2, padding=1)
        evidence = torch.cat([smooth.amax((2, 3)) / 4, 20 * torch.sigmoid(segmentation).mean((2, 3))], 1)
        pooled = torch.cat([features.mean((2, 3)), avg_pool2d(features, 8).amax((2, 3)), evidence], 1)
        return self.answer(self.dropout(pooled)), segmentation
