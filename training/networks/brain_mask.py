"""Which samples of a slice lie inside the skull: a network small enough to be asked beside the main one.

It works at half the served grid's resolution: where the skull ends need not be known to the millimetre, because
scoring leaves room around the mask before it believes that a finding lies outside.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d

from training.preprocess import GRID_PITCH_MM, GRID_SIZE, ServedGrid

HALVED = 2
MASK_SIZE, MASK_PITCH_MM = GRID_SIZE // HALVED, GRID_PITCH_MM * HALVED
# Windows (low, high) in HU: brain, soft tissue with fat, bone, air.
WINDOWS_HU = ((-20.0, 100.0), (-200.0, 200.0), (150.0, 1200.0), (-1000.0, -200.0))
WIDTHS = (12, 20, 32, 40)
RARE_LOGIT = -1.5


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class BrainTrunk(nn.Module):
    """HU on the served grid (N, S, S) → logits (N, 1, S/2, S/2)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        """Widths from the finest to the coarsest level; the coarsest sees the whole head."""
        super().__init__()
        self.stem = _conv(len(WINDOWS_HU), widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b), _conv(b, b)) for a, b in pairs)
        self.lift = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(_conv(a, a) for a, _ in pairs)
        self.gate = nn.Linear(2 * widths[-1], widths[-1])
        self.paint = nn.Conv2d(widths[0], 1, 1)
        nn.init.constant_(self.paint.bias, RARE_LOGIT)  # type: ignore[arg-type]  # a Conv2d has a bias unless told

    def forward(self, hu: Tensor) -> Tensor:
        """What the whole slice looks like is added to the deepest level: a disc alone is no brain."""
        image = avg_pool2d(hu.unsqueeze(1), HALVED)
        windows = torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU], 1)
        levels = [self.stem(windows)]
        for down in self.down:
            levels.append(down(max_pool2d(levels[-1], 2)))
        deep = levels[-1]
        whole = self.gate(torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1))
        x = deep + whole.unsqueeze(2).unsqueeze(3)
        for nth in range(len(self.down) - 1, -1, -1):
            x = self.up[nth](levels[nth] + interpolate(self.lift[nth](x), scale_factor=2.0, mode="nearest"))
        logits: Tensor = self.paint(x)
        return logits


class ServedBrainMask(nn.Module):
    """What is exported: native HU in, the chance of each sample to lie inside the skull out."""

    def __init__(self, trunk: BrainTrunk) -> None:
        """The grid is the main network's, so that the two masks lie over each other."""
        super().__init__()
        self.grid = ServedGrid()
        self.trunk = trunk

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> Tensor:
        """HU (N, H, W), spacing (N, 2) mm → MASK (N, 1, S/2, S/2), 0…1."""
        return torch.sigmoid(self.trunk(self.grid(hu, spacing_mm)))
