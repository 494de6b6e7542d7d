"""The network: a small U-Net with a segmentation head and a pooled, fully connected classification head."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pixel_shuffle

from training.phantom.lesions import CHANNELS
from training.phantom.render import LABELS
from training.preprocess import PLANES, Planes, ServedGrid

RARE_LOGIT = -4.5  # lesions fill about one pixel in a hundred: the first steps need not learn that
HIDDEN = 48  # units between the pooled features and the six probabilities


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Residual(nn.Module):
    """Two convolutions around which the input passes."""

    def __init__(self, width: int) -> None:
        """Width in and out."""
        super().__init__()
        self.first = _conv(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        return torch.relu(x + self.second(self.first(x)))


class Trunk(nn.Module):
    """HU on the served grid (N, S, S) → classification logits (N, 6), segmentation logits (N, 5, S, S)."""

    def __init__(self, widths: tuple[int, ...], dropout: float = 0.3) -> None:
        """Widths from the finest (S/2) to the coarsest level; dropout before the answer."""
        super().__init__()
        self.planes = Planes()
        self.stem = nn.Sequential(_conv(PLANES, widths[0]), _conv(widths[0], widths[0]))
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b), Residual(b)) for a, b in pairs)
        self.lift = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairs)
        self.up = nn.ModuleList(_conv(a, a) for a, _ in pairs)
        self.paint = nn.Conv2d(widths[0], 4 * len(CHANNELS), 1)
        nn.init.constant_(self.paint.bias, RARE_LOGIT)  # type: ignore[arg-type]  # a Conv2d has a bias unless told
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(2 * widths[-1] + 2 * len(CHANNELS), HIDDEN)
        self.answer = nn.Linear(HIDDEN, len(LABELS))

    def features(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """The deepest features, and the finest (N, widths[0], S/2, S/2): what pre-training shapes."""
        levels = [self.stem(self.planes(hu))]
        for down in self.down:
            levels.append(down(max_pool2d(levels[-1], 2)))
        deep = x = levels[-1]
        for nth in range(len(self.down) - 1, -1, -1):
            x = self.up[nth](levels[nth] + interpolate(self.lift[nth](x), scale_factor=2.0, mode="nearest"))
        return deep, x

    def forward(self, hu: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier sees the pooled deepest features and the strongest and mean evidence of the segmentation."""
        deep, x = self.features(hu)
        segmentation = pixel_shuffle(self.paint(x), 2)
        smooth = avg_pool2d(segmentation, 4, stride=2, padding=1)
        evidence = torch.cat([smooth.amax((2, 3)) / 4, 20 * torch.sigmoid(segmentation).mean((2, 3))], 1)
        pooled = torch.cat([deep.mean((2, 3)), deep.amax((2, 3)), evidence], 1)
        return self.answer(self.dropout(torch.relu(self.hidden(pooled)))), segmentation


class Served(nn.Module):
    """What is exported: native HU in, calibrated probabilities and segmentation out."""

    scale: Tensor
    offset: Tensor

    def __init__(self, trunk: nn.Module) -> None:
        """Calibration starts as the identity: see training.evaluation.calibration."""
        super().__init__()
        self.grid = ServedGrid()
        self.trunk = trunk
        self.register_buffer("scale", torch.ones(len(LABELS)))
        self.register_buffer("offset", torch.zeros(len(LABELS)))

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> tuple[Tensor, Tensor]:
        """HU (N, H, W), spacing (N, 2) mm → PROBABILITIES (N, 6), SEGMENTATION (N, 5, S, S), all 0…1."""
        logits, segmentation = self.trunk(self.grid(hu, spacing_mm))
        return torch.sigmoid(logits * self.scale + self.offset), torch.sigmoid(segmentation)
