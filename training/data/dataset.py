"""Slices for training: a PyTorch Dataset over any StudySource, and what puts slices of different size into one batch.

Nothing is resampled here: native HU and pixel spacing go on, as they do when served (design decision 9).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.data.dataset import CacheDataset
from monai.transforms.transform import Transform
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from training.data.study import COLUMNS, KINDS, UNNAMED_BIT, BadStudy, Entry, Study, StudySource

Item = dict[str, Tensor]
OPEN_STUDIES = 64  # kept open at once; from a cache they are maps of files and cost no memory
AIR_HU = -1024
ABOVE_MM = (
    1.5  # a neighbour may lie this share of a slice distance off the asked place before the slice itself stands in
)


class SliceDataset(Dataset[Item]):
    """Every slice of the given studies, as a dict of tensors:

    - `hu` (C, H, W) float32: the slice, then those `neighbours_mm` away (negative: towards the feet), in that order;
      where the series ends, the last one there is.
    - `labels` (6,) float32 in the order of COLUMNS: 0, 1, 0.5 grazed, NaN not said.
    - `masks` (5, H, W) float32 in the order of KINDS, zeros where nothing is said.
    - `bleed` (1, H, W) float32: every marked pixel, of whichever kind.
    - `said` (6,) float32: 1 where the mask may be compared: first for `bleed`, then for each kind.
    - `pitch_mm` (2,) float32: between rows, between columns.
    - `study` and `row` int64: index into `studies`, number of the slice from the feet.

    Where labels are said of the study only, a clean study's slices are clean and a bleeding one's say nothing.
    Studies that cannot be read are left out; `bad` says why, `strict` raises instead.
    """

    def __init__(
        self,
        source: StudySource,
        entries: Sequence[Entry],
        *,
        neighbours_mm: Sequence[float] = (),
        keep: Callable[[NDArray[np.float32]], bool] | None = None,
        strict: bool = False,
        tell: Callable[[int, int], None] = lambda _done, _of: None,
    ) -> None:
        """Loads every study once (so give a Cached source). `keep`: which slices, by their labels (6,)."""
        self._source = source
        self._neighbours_mm = tuple(neighbours_mm)
        self._open: OrderedDict[int, Study] = OrderedDict()
        self.studies: list[Entry] = []
        self.bad: list[BadStudy] = []
        self._rows: list[tuple[int, int]] = []
        labels: list[NDArray[np.float32]] = []
        for nth, entry in enumerate(entries, start=1):
            study = self._loaded(entry, strict=strict)
            if study is not None:
                told = labels_of(study)
                kept = [row for row in range(len(study.hu)) if keep is None or keep(told[row])]
                self._rows += [(len(self.studies), row) for row in kept]
                labels.append(told[kept])
                self.studies.append(entry)
            tell(nth, len(entries))
        self.labels = np.concatenate(labels) if labels else np.zeros((0, len(COLUMNS)), np.float32)

    def _loaded(self, entry: Entry, *, strict: bool) -> Study | None:
        try:
            return self._source.load(entry)
        except BadStudy as bad:
            if strict:
                raise
            self.bad.append(bad)
            return None

    def __len__(self) -> int:
        """Slices."""
        return len(self._rows)

    def __getitem__(self, at: int) -> Item:
        """The slice's tensors."""
        nth, row = self._rows[at]
        study = self._study(nth)
        labels = labels_of(study)[row]
        masks, bleed, said = masks_of(study, row, labels)
        rows = [row, *(neighbour(study.z_mm, row, away) for away in self._neighbours_mm)]
        return {
            "hu": torch.from_numpy(np.stack([study.hu[one] for one in rows]).astype(np.float32)),
            "labels": torch.from_numpy(labels),
            "masks": torch.from_numpy(masks),
            "bleed": torch.from_numpy(bleed),
            "said": torch.from_numpy(said),
            "pitch_mm": torch.tensor(study.spacing_mm[1:], dtype=torch.float32),
            "study": torch.tensor(nth),
            "row": torch.tensor(row),
        }

    def _study(self, nth: int) -> Study:
        if nth not in self._open:
            self._open[nth] = self._source.load(self.studies[nth])
            if len(self._open) > OPEN_STUDIES:
                self._open.popitem(last=False)
        self._open.move_to_end(nth)
        return self._open[nth]

    def __getstate__(self) -> dict[str, Any]:
        """A worker process opens studies itself."""
        return {**self.__dict__, "_open": OrderedDict()}

    def in_memory(self, share: float = 1.0) -> Dataset[Item]:
        """The same slices, this share of them read now and kept in memory (MONAI's CacheDataset)."""
        cached: Dataset[Item] = CacheDataset(
            range(len(self)), transform=_Slices(self), cache_rate=share, num_workers=0, progress=False
        )
        return cached

    def weights(self, positive_share: float) -> NDArray[np.float64]:
        """For a WeightedRandomSampler: slices with a bleed are drawn with this share, if there are both."""
        bleeding = self.labels[:, 0] == 1
        if not 0 < bleeding.sum() < len(bleeding):
            return np.full(len(bleeding), 1 / max(1, len(bleeding)))
        return np.where(bleeding, positive_share / bleeding.sum(), (1 - positive_share) / (~bleeding).sum())


class _Slices(Transform):
    """From a number to its slice. What is no MONAI Transform, MONAI takes for random and never keeps."""

    def __init__(self, data: SliceDataset) -> None:
        self._data = data

    def __call__(self, data: int) -> Item:
        """The name of the argument is MONAI's."""
        return self._data[data]


def labels_of(study: Study) -> NDArray[np.float32]:
    """(n, 6) labels by slice, from the slices' own where there are any, else from the study's."""
    truth = study.truth
    labels = np.full((len(study.hu), len(COLUMNS)), np.nan, np.float32)
    if truth.by_slice is not None:
        labels[:] = truth.by_slice
    for column, label in enumerate(COLUMNS):
        here = truth.any if column == 0 else truth.by_label.get(label.value)
        if here is False:
            labels[:, column] = np.where(np.isnan(labels[:, column]), 0.0, labels[:, column])
    return labels


def masks_of(
    study: Study, row: int, labels: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Masks (5, H, W), their union (1, H, W) and what may be compared (6,) of one slice with these labels (6,)."""
    count, shape = len(KINDS), study.hu.shape[1:]
    clean = labels == 0  # what is said to be absent has an empty mask, drawn or not
    if study.truth.masks is None:
        return np.zeros((count, *shape), np.float32), np.zeros((1, *shape), np.float32), clean.astype(np.float32)
    bits = np.asarray(study.truth.masks[row])
    masks = np.stack([(bits >> bit) & 1 for bit in range(count)]).astype(np.float32)
    unnamed = bool(((bits >> UNNAMED_BIT) & 1).any())
    kinds = clean[1:] | (~np.isnan(labels[1:]) & (not unnamed))
    return masks, (bits > 0).astype(np.float32)[None], np.concatenate([[True], kinds]).astype(np.float32)


def neighbour(z_mm: NDArray[np.float32], row: int, away_mm: float) -> int:
    """The slice nearest to the place `away_mm` from the slice `row`; at the end of a series that is the last one."""
    return int(np.abs(z_mm - (z_mm[row] + away_mm)).argmin())


def padded_batch(items: Sequence[Item]) -> Item:
    """Slices of different matrix in one batch: air is put evenly around the smaller ones, masks stay where they lie."""
    height, width = (max(item["hu"].shape[axis] for item in items) for axis in (1, 2))
    fill = {"hu": float(AIR_HU), "masks": 0.0, "bleed": 0.0}
    return {
        name: torch.stack(
            [_around(item[name], height, width, fill[name]) if name in fill else item[name] for item in items]
        )
        for name in items[0]
    }


def _around(image: Tensor, height: int, width: int, value: float) -> Tensor:
    down, across = height - image.shape[1], width - image.shape[2]
    sides = (across // 2, across - across // 2, down // 2, down - down // 2)
    return torch.nn.functional.pad(image, sides, value=value)
