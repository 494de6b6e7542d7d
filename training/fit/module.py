"""Lightning's side of a fit: one network, its loss, its average, its optimiser and schedule. Touches no disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from torchmetrics.classification import BinaryAUROC

from training.data.dataset import Item
from training.data.study import GRAZED
from training.fit.adversarial import attacked
from training.fit.augment import bent, reshaped
from training.fit.losses import Answers, LesionLoss, distilled
from training.fit.options import NONE, FitSettings
from training.fit.pseudo import pseudo_loss, ramped

AVERAGE_KEEP = 0.995  # moving average of the weights, which is what is served: steadier than the last step
LOWEST_RATE = 0.02  # share of the highest at the end of the cosine
RISE = 0.3  # share of a one-cycle schedule that rises, unless warm_up says otherwise
ATTACK_STEPS = {"fgsm": 1}
EXTRA = "_extra_state"  # PyTorch's name for it in a state dict
RANK_STRIDE = 7919  # processes draw apart from one another


class Fitting(lightning.LightningModule):
    """Trains `trunk`; `average` holds the weights that are validated and served."""

    def __init__(
        self,
        network: nn.Module,
        settings: FitSettings,
        steps: int,
        clock: Callable[[], float],
        *,
        teacher: nn.Module | None = None,
        weights: Tensor | None = None,
    ) -> None:
        """`steps`: of the whole fit. `clock`: processor seconds that only grow. `weights`: of present labels."""
        super().__init__()
        self.trunk = network
        self.average = AveragedModel(network, avg_fn=_kept, use_buffers=True).requires_grad_(requires_grad=False)
        self.settings = settings
        self.spent_s = 0.0
        self.losses: list[float] = []  # of each epoch
        self.out_of_time = False
        self._steps, self._clock, self._began = steps, clock, 0.0
        self._teacher = [] if teacher is None else [teacher.eval().requires_grad_(requires_grad=False)]
        self._loss = LesionLoss(focal=settings.imbalance == "focal", weights=weights)
        self._auroc = BinaryAUROC()
        self._draw = torch.Generator()
        self._sum, self._count = 0.0, 0

    @property
    def share(self) -> float:
        """Of the steps. Of no clock: a slower machine must train the same network."""
        return min(1.0, self.global_step / self._steps)

    def on_train_epoch_start(self) -> None:
        """What is frozen keeps its statistics too."""
        self._sum, self._count = 0.0, 0
        for module in self.trunk.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Every step draws from a seed of its own, so that a fit that was cut off goes on as if it had not been."""
        seed = self.settings.seed * 1_000_003 + self.global_step + RANK_STRIDE * self.global_rank
        self._draw.manual_seed(seed)
        torch.manual_seed(seed)  # dropout
        self._began = self._clock()

    def training_step(self, batch: dict[str, Item], _at: int) -> Tensor:
        """The labelled slices, attacked ones, a teacher's opinion, and slices without labels."""
        item = batch["labelled"]
        image, masks, bleed = self._on_grid(item, bend=True)

        def loss_of(answers: Answers) -> Tensor:
            found: Tensor = self._loss(answers, item["labels"], masks, bleed, item["said"])
            return found

        answers = self.trunk(image)
        loss = loss_of(answers)
        if self.settings.adversarial != "none":
            steps = ATTACK_STEPS.get(self.settings.adversarial, self.settings.adversarial_steps)
            moved = attacked(
                self.trunk, lambda one: loss_of(self.trunk(one)), image, self.settings.adversarial_hu, steps
            )
            loss = (loss + loss_of(self.trunk(moved))) / 2
        if self._teacher:
            with torch.no_grad():
                taught = self._teacher[0].to(image.device)(image)
            loss = torch.lerp(loss, distilled(answers, taught), self.settings.distil)
        if "unlabelled" in batch:
            loss = loss + self.settings.pseudo_weight * ramped(self.share) * self._unlabelled(batch["unlabelled"])
        self.log("loss", loss, prog_bar=True, batch_size=len(image))
        self._sum, self._count = self._sum + float(loss.detach()), self._count + 1
        return loss

    def _unlabelled(self, item: Item) -> Tensor:
        hu, nothing = item["hu"][:, 0], item["bleed"]
        plain, _ = reshaped(hu, nothing, item["pitch_mm"], self.settings.augment, self._draw)
        with torch.no_grad():
            believed = self.average.eval()(plain)
        return pseudo_loss(self.settings.pseudo, self.trunk(bent(plain, self.settings.augment, self._draw)), believed)

    def _on_grid(self, item: Item, *, bend: bool) -> tuple[Tensor, Tensor, Tensor]:
        """HU (N, S, S), masks (N, 5, S, S), bleed (N, 1, S, S)."""
        ranges = self.settings.augment if bend else NONE
        drawn = torch.cat([item["masks"], item["bleed"]], 1)
        image, target = reshaped(item["hu"][:, 0], drawn, item["pitch_mm"], ranges, self._draw)
        return (bent(image, ranges, self._draw) if bend else image), target[:, :-1], target[:, -1:]

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # as above
        """The average follows every step."""
        self.average.update_parameters(self.trunk)
        self.spent_s += self._clock() - self._began

    def on_train_epoch_end(self) -> None:
        """Keeps the epoch's loss; ends the fit when its time is used up, in all processes or in none."""
        self.losses.append(self._sum / max(1, self._count))
        spent = self.spent_s >= self.settings.budget_s
        if self.trainer.strategy.reduce_boolean_decision(spent, all=False):
            self.trainer.should_stop = True
            self.out_of_time = len(self.losses) < self.settings.epochs

    def validation_step(self, item: Item, _at: int) -> None:
        """The averaged network on slices as they are."""
        image, masks, bleed = self._on_grid(item, bend=False)
        answers = self.average.eval()(image)
        loss = self._loss(answers, item["labels"], masks, bleed, item["said"])
        self.log("validation_loss", loss, prog_bar=True, batch_size=len(image), sync_dist=True)
        labels = item["labels"][:, 0]
        asked = (labels != GRAZED) & ~torch.isnan(labels)
        self._auroc.update(torch.sigmoid(answers[0][asked, 0]), (labels[asked] == 1).long())

    def on_validation_epoch_end(self) -> None:
        """Area under the ROC of *any*, over all slices; chance where the set has only one class."""
        held = self._auroc.target
        truth = torch.cat(held) if isinstance(held, list) and held else torch.zeros(0)
        if self._auroc.update_called and 0 < int(truth.sum()) < len(truth):
            self.log("validation_auroc", self._auroc.compute(), prog_bar=True)
        self._auroc.reset()

    def get_extra_state(self) -> dict[str, Any]:
        """What a fit needs to go on, and what several processes bring back: it travels with the weights."""
        return {"spent_s": self.spent_s, "losses": self.losses, "out_of_time": self.out_of_time}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """As told."""
        self.spent_s, self.losses = float(state["spent_s"]), list(state["losses"])
        self.out_of_time = bool(state["out_of_time"])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checkpoints once held these numbers beside the weights."""
        if "losses" in checkpoint:
            told = {"spent_s": checkpoint["spent_s"], "losses": checkpoint["losses"], "out_of_time": False}
            checkpoint["state_dict"].setdefault(EXTRA, told)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Lightning asks."""
        learned = [one for one in self.trunk.parameters() if one.requires_grad]
        optimiser = _optimiser(learned, self.settings)
        return [optimiser], self._schedules(optimiser)

    def _schedules(self, optimiser: Optimizer) -> list[Any]:
        fit = self.settings
        if fit.schedule == "one_cycle":
            rise = fit.warm_up or RISE
            return [_by_step(OneCycleLR(optimiser, fit.learning_rate, total_steps=self._steps, pct_start=rise))]
        if fit.schedule == "plateau":
            slow = ReduceLROnPlateau(optimiser, factor=0.5, patience=fit.patience)
            told = [{"scheduler": slow, "interval": "epoch", "monitor": "validation_loss"}]
            rising = max(1, round(fit.warm_up * self._steps))
            return told if not fit.warm_up else [*told, _by_step(LinearLR(optimiser, 1 / rising, total_iters=rising))]
        return [_by_step(LambdaLR(optimiser, self._rate))]

    def _rate(self, step: int) -> float:
        """Share of the highest rate: a rise, then a half cosine over all steps, or a constant."""
        rising = self.settings.warm_up * self._steps
        rise = min(1.0, (step + 1) / rising) if rising else 1.0
        if self.settings.schedule == "constant":
            return rise
        return rise * max(LOWEST_RATE, 0.5 * (1 + math.cos(math.pi * min(1.0, step / self._steps))))


def _by_step(scheduler: Any) -> dict[str, Any]:
    return {"scheduler": scheduler, "interval": "step"}


def _optimiser(learned: list[nn.Parameter], fit: FitSettings) -> Optimizer:
    if fit.optimiser == "sgd":
        return torch.optim.SGD(
            learned, fit.learning_rate, fit.momentum, weight_decay=fit.weight_decay, nesterov=fit.momentum > 0
        )
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[fit.optimiser]
    return kind(learned, fit.learning_rate, weight_decay=fit.weight_decay)


def _kept(average: Tensor, now: Tensor, updates: Tensor | int) -> Tensor:
    """The first steps are soon forgotten."""
    steps = float(updates) + 1
    keep = min(AVERAGE_KEEP, steps / (steps + 10))
    return average * keep + now * (1 - keep)
