"""Fitting the network: a plain loop, one thread, seeded, able to go on from any epoch. Touches no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from training.augment import NONE, Ranges, to_grid
from training.network import Trunk
from training.recipe import FitSettings
from training.slices_out import SliceTable

SEGMENTATION_WEIGHT = 15.0  # pixels are mostly empty: their mean loss is small beside the six labels'
DICE_WEIGHT = 0.6
POSITIVE_PIXEL_WEIGHT = 5.0
AVERAGE_KEEP = 0.995  # moving average of the weights, which is what is served: steadier than the last step


@dataclass
class Progress:
    """What a checkpoint holds. `spent_s` counts over all sittings."""

    trunk: Trunk
    average: dict[str, Tensor]
    optimiser: torch.optim.Optimizer
    epoch: int = 0
    steps: int = 0
    spent_s: float = 0.0
    losses: list[float] = field(default_factory=list)

    def state(self) -> dict[str, Any]:
        """Plain tensors and numbers, for torch.save."""
        return {
            "trunk": self.trunk.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch,
            "steps": self.steps,
            "spent_s": self.spent_s,
            "losses": self.losses,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.trunk.load_state_dict(state["trunk"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average = state["average"]
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.spent_s, self.losses = state["spent_s"], state["losses"]


def start(settings: FitSettings) -> Progress:
    """A fresh network of this seed."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormals make some layers a hundred times slower
    trunk = Trunk(settings.widths).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's overloads
    optimiser = torch.optim.AdamW(trunk.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    return Progress(trunk, {k: v.clone() for k, v in trunk.state_dict().items()}, optimiser)


def fit(
    progress: Progress,
    table: SliceTable,
    settings: FitSettings,
    clock: Callable[[], float],
    epoch_done: Callable[[Progress], None],
    step_done: Callable[[int, int, float], None] = lambda _step, _of, _loss: None,
) -> Trunk:
    """Train until the epochs or the budget are used up; return the network with averaged weights.

    `clock` gives seconds that only grow. The learning rate falls along a half cosine over whichever ends first.
    """
    while progress.epoch < settings.epochs and progress.spent_s < settings.budget_s:
        began = clock()
        share = max(progress.epoch / settings.epochs, progress.spent_s / settings.budget_s)
        _set_rate(progress.optimiser, settings.learning_rate, share)
        progress.losses.append(_epoch(progress, table, settings, step_done))
        progress.epoch += 1
        progress.spent_s += clock() - began
        epoch_done(progress)
    progress.trunk.load_state_dict(progress.average)
    return progress.trunk.eval()


def _set_rate(optimiser: torch.optim.Optimizer, highest: float, share: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = highest * max(0.02, 0.5 * (1 + float(np.cos(np.pi * min(share, 1.0)))))


def _epoch(
    progress: Progress, table: SliceTable, settings: FitSettings, step_done: Callable[[int, int, float], None]
) -> float:
    draw = torch.Generator().manual_seed(settings.seed * 1000 + progress.epoch)
    torch.manual_seed(settings.seed * 1000 + progress.epoch)  # dropout
    batches = list(_batches(len(table.hu), settings.batch_size, draw))
    total = 0.0
    progress.trunk.train()
    for nth, rows in enumerate(batches):
        loss = _step(progress, table, rows, draw)
        total += loss
        step_done(nth + 1, len(batches), loss)
    return total / len(batches)


def _batches(count: int, size: int, draw: torch.Generator) -> Iterator[np.ndarray[Any, np.dtype[np.intp]]]:
    order = torch.randperm(count, generator=draw).numpy()
    for at in range(0, count - size + 1, size):
        yield np.sort(order[at : at + size])


def _step(
    progress: Progress, table: SliceTable, rows: np.ndarray[Any, np.dtype[np.intp]], draw: torch.Generator
) -> float:
    image, masks = to_grid(*_tensors(table, rows), Ranges(), draw)
    labels = torch.from_numpy(table.labels[rows])
    loss = loss_of(progress.trunk(image), labels, masks)
    progress.optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]  # torch has no annotation there
    torch.nn.utils.clip_grad_norm_(progress.trunk.parameters(), 5.0)
    progress.optimiser.step()
    progress.steps += 1
    keep = min(AVERAGE_KEEP, progress.steps / (progress.steps + 10))  # the first steps are soon forgotten
    for name, value in progress.trunk.state_dict().items():
        if value.dtype.is_floating_point:
            progress.average[name].lerp_(value, 1 - keep)
    return float(loss.detach())


def _tensors(table: SliceTable, rows: np.ndarray[Any, np.dtype[np.intp]]) -> tuple[Tensor, Tensor, Tensor]:
    hu = torch.from_numpy(table.hu[rows].astype(np.float32))
    masks = torch.from_numpy(table.masks(rows).astype(np.float32))
    return hu, masks, torch.from_numpy(table.pitch_mm[rows])


def loss_of(answers: tuple[Tensor, Tensor], labels: Tensor, masks: Tensor) -> Tensor:
    """Cross-entropy of labels (0.5 is not asked) and pixels, and soft Dice of the pixels."""
    logits, segmentation = answers
    asked = (labels != 0.5).float()
    label_loss = (binary_cross_entropy_with_logits(logits, labels, reduction="none") * asked).mean()
    weight = 1 + (POSITIVE_PIXEL_WEIGHT - 1) * masks
    pixel_loss = binary_cross_entropy_with_logits(segmentation, masks, weight=weight)
    guess = torch.sigmoid(segmentation)
    overlap = (guess * masks).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 20) / (guess.sum((0, 2, 3)) + masks.sum((0, 2, 3)) + 20)
    return label_loss + SEGMENTATION_WEIGHT * pixel_loss + DICE_WEIGHT * dice.mean()


def plain_grid(table: SliceTable, rows: np.ndarray[Any, np.dtype[np.intp]]) -> tuple[Tensor, Tensor]:
    """Slices and masks on the served grid without augmentation, for looking at."""
    return to_grid(*_tensors(table, rows), NONE, torch.Generator().manual_seed(0))
