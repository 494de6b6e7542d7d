"""Fitting the brain mask: Lightning's loop, MONAI's loss, the main network's augmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import numpy as np
import torch
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import avg_pool2d
from torch.utils.data import DataLoader, Dataset

from training.brain.slices_out import BrainTable
from training.fit.augment import NONE, Ranges, to_grid
from training.networks.brain_mask import HALVED, BrainTrunk

Batch = tuple[Tensor, Tensor]
# The domain gap is bridged by bending more than the main network does: the mask has an easier task.
RANGES = Ranges(turn_deg=20, zoom=0.18, shift_mm=15, gain=0.12, offset_hu=15, noise_hu=14, shading_hu=8)


class BrainSlices(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Slices of a table: HU (H, W), inside (1, H, W), pitch."""

    def __init__(self, table: BrainTable) -> None:
        self._table = table

    def __len__(self) -> int:
        """How many."""
        return len(self._table.hu)

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """One, as float32."""
        hu = torch.from_numpy(self._table.hu[row].astype(np.float32))
        inside = torch.from_numpy(self._table.inside[row][None].astype(np.float32))
        return hu, inside, torch.tensor(self._table.pitch_mm[row])


class Fitting(lightning.LightningModule):
    """One network, its loss and its schedule."""

    def __init__(self, steps: int, learning_rate: float, seed: int) -> None:
        super().__init__()
        self.trunk = BrainTrunk()
        self._loss = DiceCELoss(sigmoid=True, smooth_nr=5.0, smooth_dr=5.0, batch=True)
        self._steps, self._rate = steps, learning_rate
        self._draw = torch.Generator().manual_seed(seed)

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], _at: int) -> Tensor:
        """Bent at random, every step anew."""
        image, target = on_mask_grid(*batch, RANGES, self._draw)
        loss: Tensor = self._loss(self.trunk(image), target)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """Adam with one cycle of rates."""
        optimiser = torch.optim.AdamW(self.parameters(), self._rate, weight_decay=1e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self._rate, total_steps=self._steps)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def on_mask_grid(hu: Tensor, inside: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator) -> Batch:
    """HU on the served grid (N, S, S), inside on the mask's grid (N, 1, S/2, S/2) 0/1."""
    image, target = to_grid(hu, inside, pitch_mm, ranges, draw)
    return image, (avg_pool2d(target, HALVED) >= 0.5).float()


def fit(table: BrainTable, epochs: int, batch: int, learning_rate: float, seed: int) -> BrainTrunk:
    """A network fitted to the table, on one thread, the same for the same seed."""
    lightning.seed_everything(seed, verbose=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormals make some layers a hundred times slower
    loader = DataLoader(BrainSlices(table), batch, shuffle=True, drop_last=True)
    fitting = Fitting(epochs * len(loader), learning_rate, seed)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        gradient_clip_val=5.0,
    )
    trainer.fit(fitting, loader)
    return fitting.trunk.eval()


def truths_of(table: BrainTable, batch: int = 16) -> Iterator[NDArray[Any]]:
    """What lies inside on the mask's grid (S/2, S/2) 0/1, of every slice without augmentation."""
    draw = torch.Generator().manual_seed(0)
    for hu, inside, pitch_mm in DataLoader(BrainSlices(table), batch):
        yield from on_mask_grid(hu, inside, pitch_mm, NONE, draw)[1][:, 0].numpy()
