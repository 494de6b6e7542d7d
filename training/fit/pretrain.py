"""Shaping a network on slices without labels, before it is fitted: what is masked is painted again, or two bent views
of a slice are told from all other slices'.
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
from monai.losses.contrastive import ContrastiveLoss
from monai.networks.layers.factories import Norm
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize, pixel_shuffle

from training.data.dataset import Item
from training.fit.augment import bent, reshaped
from training.fit.options import FitSettings
from training.networks.student import Trunk
from training.preprocess import AIR_HU, GRID_SIZE, WINDOWS_HU

PATCHES = 12  # a side: 19 mm each, the size of a bleed that matters
MASKED_SHARE = 0.5
MASKED_HU = AIR_HU
CODE = 32  # length of the code that views are compared by
TEMPERATURE = 0.2


class Pretraining(lightning.LightningModule):
    """Trains `trunk` up to its heads, which are left as they were."""

    def __init__(self, trunk: Trunk, settings: FitSettings) -> None:
        super().__init__()
        self.trunk = trunk
        self._settings = settings
        finest, deepest = settings.widths[0], settings.widths[-1]
        self._draw = torch.Generator()
        self._head: nn.Module
        if settings.pretrain == "masked":
            self._head = nn.Conv2d(finest, 4 * len(WINDOWS_HU), 1)
        else:
            norm = Norm[Norm.BATCH, 1](deepest)
            self._head = nn.Sequential(nn.Linear(2 * deepest, deepest), norm, nn.ReLU(), nn.Linear(deepest, CODE))
        self._contrast = ContrastiveLoss(temperature=TEMPERATURE)
        self.losses: list[float] = []

    def training_step(self, batch: dict[str, Item], _at: int) -> Tensor:
        """A loss of the slices alone: no label is looked at."""
        item = batch["labelled"]
        self._draw.manual_seed(self._settings.seed * 1_000_003 + self.global_step)
        loss = self._masked(item) if self._settings.pretrain == "masked" else self._contrasted(item)
        self.losses.append(float(loss.detach()))
        self.log("pretrain_loss", loss, prog_bar=True, batch_size=len(item["row"]))
        return loss

    def _view(self, item: Item) -> Tensor:
        ranges = self._settings.augment
        image, _ = reshaped(item["hu"][:, 0], item["bleed"], item["pitch_mm"], ranges, self._draw)
        return bent(image, ranges, self._draw)

    def _masked(self, item: Item) -> Tensor:
        image = self._view(item)
        hidden = (torch.rand(len(image), 1, PATCHES, PATCHES, generator=self._draw) < MASKED_SHARE).float()
        hidden = interpolate(hidden, (GRID_SIZE, GRID_SIZE), mode="nearest").to(image.device)
        _, finest = self.trunk.features(torch.where(hidden[:, 0] > 0, MASKED_HU, image))
        painted = pixel_shuffle(self._head(finest), 2)
        truth = torch.stack([((image - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU], 1)
        return ((painted - truth).abs() * hidden).sum() / (hidden.sum() * len(WINDOWS_HU)).clamp(min=1)

    def _contrasted(self, item: Item) -> Tensor:
        first, second = (self._code(self._view(item)) for _ in range(2))
        loss: Tensor = self._contrast(first, second)
        return loss

    def _code(self, image: Tensor) -> Tensor:
        deep, _ = self.trunk.features(image)
        return normalize(self._head(torch.cat([deep.mean((2, 3)), deep.amax((2, 3))], 1)))

    def configure_optimizers(self) -> Any:
        """AdamW at the fit's rate."""
        return torch.optim.AdamW(self.parameters(), self._settings.learning_rate, weight_decay=1e-3)
