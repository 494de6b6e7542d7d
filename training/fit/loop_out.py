"""Runs a fit: Lightning's trainer, its checkpoints, curves and progress bar."""

from __future__ import annotations

import logging
import os
import pickle
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn

from training.fit.data import Batches, Unfit
from training.fit.losses import label_weights
from training.fit.module import Fitting
from training.fit.options import FitSettings
from training.networks.adapters import merged

CHECKPOINT = "fit"
GRADIENT_NORM = 5.0
LEAST_GAIN = 1e-4  # of the validation loss: less is no gain


@dataclass(frozen=True, eq=False)
class Fitted:
    """network: with averaged weights, evaluating. losses: of each epoch. out_of_time: the budget ended it early."""

    network: nn.Module
    epochs: int
    spent_s: float
    losses: list[float]
    out_of_time: bool = False


class _Epochs(Callback):
    """Tells the batches which epoch it is."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """The order of the slices depends on it."""
        batches = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it when fit is given one
        batches.begin(trainer.current_epoch)


class _WholeFiles(TorchCheckpointIO):
    """A checkpoint is there entirely or not at all: a fit may be cut off while it writes one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """As Lightning does, and then in place at once."""
        partial = Path(f"{path}.partial")
        super().save_checkpoint(checkpoint, partial, storage_options)
        partial.replace(path)


def fit(
    network: nn.Module,
    batches: Batches,
    settings: FitSettings,
    *,
    folder: Path | None = None,
    teacher: nn.Module | None = None,
    clock: Callable[[], float] = time.process_time,
    quiet: bool = False,
) -> Fitted:
    """Train until the epochs or the budget are used up, or the validation loss no longer falls.

    With a folder, checkpoints and TensorBoard's curves are kept there, and a fit that was cut off goes on.

    Raises:
        Unfit: the folder's checkpoint is of another fit, or damaged.
    """
    steady(settings.seed)
    weights = label_weights(batches.labels) if settings.imbalance == "weights" else None
    fitting = Fitting(network, settings, batches.steps, clock, teacher=teacher, weights=weights)
    trainer = trainer_of(settings, folder, quiet=quiet, epochs=settings.epochs)
    kept = folder / f"{CHECKPOINT}.ckpt" if folder else None
    with hushed():
        try:
            trainer.fit(
                fitting,
                datamodule=batches,
                ckpt_path=kept if kept and kept.exists() else None,
                weights_only=True,
            )
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as fault:
            if kept and kept.exists() and not fitting.losses:
                raise Unfit(f"{kept}: cannot be gone on from ({type(fault).__name__}); --fresh starts anew") from fault
            raise
    found = merged(fitting.average.module.cpu()).eval()
    return Fitted(found, len(fitting.losses), fitting.spent_s, fitting.losses, fitting.out_of_time)


def steady(seed: int) -> None:
    """The same fit for the same seed, on one thread."""
    lightning.seed_everything(seed, verbose=False)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # denormals make some layers a hundred times slower


def trainer_of(settings: FitSettings, folder: Path | None, *, quiet: bool, epochs: int) -> lightning.Trainer:
    """A trainer for these settings, on a GPU where there is one."""
    gpu = torch.cuda.is_available()
    if gpu and settings.processes > torch.cuda.device_count():
        raise Unfit(f"fit.processes: {settings.processes}, but there are {torch.cuda.device_count()} GPUs")
    several = "ddp_spawn" if gpu else "ddp_fork"
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=settings.processes,
        strategy=several if settings.processes > 1 else "auto",
        precision="16-mixed" if gpu and settings.precision == "auto" else "32-true",
        max_epochs=epochs,
        gradient_clip_val=GRADIENT_NORM,
        use_distributed_sampler=False,  # Order gives each process its part
        logger=TensorBoardLogger(folder, name="curves", version="") if folder else False,
        log_every_n_steps=10,
        callbacks=_callbacks(settings, folder, quiet=quiet),
        plugins=[_WholeFiles()],
        enable_checkpointing=folder is not None,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def _callbacks(settings: FitSettings, folder: Path | None, *, quiet: bool) -> list[Callback]:
    found: list[Callback] = [_Epochs()]
    if settings.early_stop:
        found.append(EarlyStopping("validation_loss", min_delta=LEAST_GAIN, patience=settings.early_stop))
    if not quiet:
        found.append(RichProgressBar())
    if folder:
        found.append(ModelCheckpoint(folder, CHECKPOINT, enable_version_counter=False, save_on_train_epoch_end=True))
    return found


class hushed:  # noqa: N801  # a context, read like a word
    """Lightning's advice on workers and devices is for others."""

    def __enter__(self) -> None:
        self._level = logging.getLogger("lightning.pytorch").level
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        warnings.filterwarnings("ignore", module=r"lightning\..*")
        warnings.filterwarnings("ignore", module=r"torchmetrics\..*")

    def __exit__(self, *_: object) -> None:
        self._warnings.__exit__(None, None, None)
        logging.getLogger("lightning.pytorch").setLevel(self._level)
