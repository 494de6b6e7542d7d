"""Batches for a fit: cached phantom slices and any source's slices in one form, in an order of seed and epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Sampler

from contracts.errors import TriageError
from training.data.dataset import Item, SliceDataset, padded_batch
from training.fit.augment import coarser
from training.fit.options import FitSettings
from training.slices_out import SliceTable

VALIDATION_BATCH = 16
POSITIVE_SHARE = 0.5  # of the slices that the sampler draws


class Unfit(TriageError):
    """A fit that cannot be; the sentence names the option or the data at fault."""


class TableSlices(Dataset[Item]):
    """A table's slices as SliceDataset gives them; everything is said of a phantom."""

    def __init__(self, table: SliceTable) -> None:
        self._table = table
        self.labels: NDArray[np.float32] = table.labels

    def __len__(self) -> int:
        """Slices."""
        return len(self._table.hu)

    def __getitem__(self, at: int) -> Item:
        """The slice's tensors."""
        masks = torch.from_numpy(self._table.masks(np.array([at]))[0].astype(np.float32))
        return {
            "hu": torch.from_numpy(self._table.hu[at][None].astype(np.float32)),
            "labels": torch.from_numpy(self._table.labels[at]),
            "masks": masks,
            "bleed": masks.amax(0, keepdim=True),
            "said": torch.ones(len(self._table.labels[at])),
            "pitch_mm": torch.full((2,), float(self._table.pitch_mm[at])),
            "study": torch.tensor(self._table.head[at]),
            "row": torch.tensor(at),
        }


class Joined(ConcatDataset[Item]):
    """Phantoms and real slices as one."""

    def __init__(self, parts: Sequence[TableSlices | SliceDataset]) -> None:
        super().__init__(parts)
        self.labels: NDArray[np.float32] = np.concatenate([part.labels for part in parts])


Slices = TableSlices | SliceDataset | Joined


def collated(items: Sequence[Item]) -> Item:
    """Slices of any matrix in one batch, those of fine pixels averaged first (see `coarser`)."""
    return padded_batch([_coarse(item) for item in items])


def _coarse(item: Item) -> Item:
    marks = torch.cat([item["masks"], item["bleed"]])[None]
    hu, marks, pitch_mm = coarser(item["hu"][:1], marks, item["pitch_mm"][None])
    return {**item, "hu": hu, "masks": marks[0, :-1], "bleed": marks[0, -1:], "pitch_mm": pitch_mm[0]}


class Order(Sampler[int]):
    """Rows in an order of this epoch's own, each process its part; `weights`: drawn with these shares, repeatedly."""

    def __init__(self, rows: int, wanted: int, seed: int, weights: NDArray[np.float64] | None = None) -> None:
        self._rows, self._wanted, self._seed, self._weights = rows, wanted, seed, weights
        self.epoch = 0

    def __len__(self) -> int:
        """Of this process."""
        return self._wanted // _world()[1]

    def __iter__(self) -> Iterator[int]:
        """Looks at the epoch when the first row is asked for."""
        draw = torch.Generator().manual_seed(self._seed * 1000 + self.epoch)
        if self._weights is not None:
            order = torch.multinomial(torch.from_numpy(self._weights), self._wanted, replacement=True, generator=draw)
        else:
            rounds = -(-self._wanted // self._rows)
            order = torch.cat([torch.randperm(self._rows, generator=draw) for _ in range(rounds)])[: self._wanted]
        rank, world = _world()
        yield from order[rank::world].tolist()


class Batches(lightning.LightningDataModule):
    """Labelled slices, with as many without labels where there are some; and the validation's."""

    def __init__(
        self, train: Slices, validation: Slices | None, settings: FitSettings, unlabelled: Slices | None = None
    ) -> None:
        """`unlabelled` is only used where the settings ask for pseudo-labels.

        Raises:
            Unfit: there are fewer slices than a batch takes, or nothing to validate on where that is needed.
        """
        super().__init__()
        self._train, self._validation, self._settings = train, validation, settings
        self._unlabelled = unlabelled if settings.pseudo != "none" else None
        at_once = settings.batch_size * settings.processes
        self.batches = len(train) // at_once
        if not self.batches:
            raise Unfit(f"fit.batch_size: {at_once} slices at once are more than the {len(train)} to learn from")
        if validation is None and (settings.early_stop or settings.schedule == "plateau"):
            raise Unfit("fit.early_stop, fit.schedule: stopping early and the plateau need a validation set")
        wanted = self.batches * at_once
        self._order = Order(len(train), wanted, settings.seed, self._weights())
        self._other = Order(len(self._unlabelled), wanted, settings.seed + 1) if self._unlabelled else None

    @property
    def steps(self) -> int:
        """Of the whole fit."""
        return self.batches * self._settings.epochs

    @property
    def labels(self) -> Tensor:
        """(n, 6) of the slices to learn from."""
        return torch.from_numpy(self._train.labels)

    def _weights(self) -> NDArray[np.float64] | None:
        if self._settings.imbalance != "sampler":
            return None
        there = self._train.labels[:, 0] == 1
        if not 0 < there.sum() < len(there):
            raise Unfit("fit.imbalance: the sampler needs slices with and without a bleed to learn from")
        return np.where(there, POSITIVE_SHARE / there.sum(), (1 - POSITIVE_SHARE) / (~there).sum())

    def begin(self, epoch: int) -> None:
        """Before an epoch's first batch."""
        self._order.epoch = epoch
        if self._other is not None:
            self._other.epoch = epoch

    def train_dataloader(self) -> Any:
        """{"labelled": …, "unlabelled": …}."""
        loaders = {"labelled": self._loader(self._train, self._order)}
        if self._unlabelled is not None and self._other is not None:
            loaders["unlabelled"] = self._loader(self._unlabelled, self._other)
        return CombinedLoader(loaders, "min_size")

    def _loader(self, slices: Slices, order: Order) -> DataLoader[Item]:
        return DataLoader(slices, self._settings.batch_size, sampler=order, drop_last=True, collate_fn=collated)

    def val_dataloader(self) -> Any:
        """In order; each process its part."""
        if self._validation is None:
            return []
        rank, world = _world()
        rows = torch.utils.data.Subset(self._validation, range(rank, len(self._validation), world))
        return DataLoader(rows, VALIDATION_BATCH, collate_fn=collated)


def _world() -> tuple[int, int]:
    """(this process, how many)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
