"""BLAST-CT as a baseline, where its weights are given: 1 mm isotropic, window −15…100 HU, overlapping blocks in 3D."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from contracts.errors import TriageError
from training.data.study import Study
from training.evaluation.measure import Numbers
from training.evaluation.reading import Reading
from training.evaluation.threshold import HALF_MM2, any_reading

WINDOW_HU = (-15.0, 100.0)
BLOCK_IN, BLOCK_OUT = 155, 75  # mm: valid convolutions, 40 mm of context on every side
MARGIN = (BLOCK_IN - BLOCK_OUT) // 2
BLOOD = (1, 2, 4)  # intraparenchymal, extra-axial, intraventricular; 3 is oedema
HEAD_FROM_HU = -300.0


class NoBlast(TriageError):
    """The network or its weights cannot be had."""


@dataclass(eq=False)
class BlastCt:
    """A reader: a slice's score is the area of blood in it; kinds are not told apart here."""

    weights: Path
    name: str = "BLAST-CT"

    def __post_init__(self) -> None:
        """Load once.

        Raises:
            NoBlast: this checkout has no such network, or the file holds other weights.
        """
        self.thresholds: Mapping[str, float] = {"any": 0.5}
        torch.set_flush_denormal(True)  # minutes without
        self._network = _loaded(self.weights)

    def read(self, study: Study) -> Reading:
        """About a minute a head and core."""
        marks = self.blood(study)
        area_mm2 = marks.sum((1, 2)) * study.spacing_mm[1] * study.spacing_mm[2]
        spacing_mm = (study.spacing_mm[1], study.spacing_mm[2])
        return any_reading(study, np.asarray(area_mm2 / (area_mm2 + HALF_MM2), np.float64), marks, spacing_mm)

    def blood(self, study: Study) -> NDArray[np.bool_]:
        """(n, H, W): what it takes for blood of any kind."""
        return onto_slices(np.isin(self.classes(isotropic(study)), BLOOD), study)

    def classes(self, volume: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Of a volume (z, y, x) in HU at 1 mm."""
        low, high = WINDOW_HU
        scaled = np.clip((volume - low) / (high - low), 0, 1) * 2 - 1
        shape = volume.shape
        sizes = [-(-size // BLOCK_OUT) * BLOCK_OUT for size in shape]
        padding = [(MARGIN, MARGIN + whole - size) for whole, size in zip(sizes, shape, strict=True)]
        padded = np.pad(scaled, padding, constant_values=-1.0)
        found = np.zeros(sizes, np.uint8)
        for corner in itertools.product(*(range(0, size, BLOCK_OUT) for size in sizes)):
            block = padded[tuple(slice(at, at + BLOCK_IN) for at in corner)]
            inner = block[MARGIN:-MARGIN, MARGIN:-MARGIN, MARGIN:-MARGIN]
            if (inner > -1).any():  # air holds no blood
                found[tuple(slice(at, at + BLOCK_OUT) for at in corner)] = self._block(block)
        return found[tuple(slice(0, size) for size in shape)]

    def _block(self, block: NDArray[np.float32]) -> NDArray[np.uint8]:
        with torch.no_grad():
            told = self._network(torch.from_numpy(np.ascontiguousarray(block, np.float32))[None, None])
        return told[0].argmax(0).numpy().astype(np.uint8)


def _loaded(weights: Path) -> Any:
    try:
        network = importlib.import_module("training.networks.blast_ct").load(weights)
    except ModuleNotFoundError as problem:
        raise NoBlast(f"BLAST-CT cannot be run: there is no module {problem.name} in this checkout") from problem
    except (OSError, ValueError, KeyError, RuntimeError) as problem:
        raise NoBlast(f"{weights}: not BLAST-CT's weights ({type(problem).__name__})") from problem
    return network.eval()


def isotropic(study: Study) -> NDArray[np.float32]:
    """The head's box at 1 mm, linear between slices."""
    box = head_box(study)
    return np.asarray(
        ndimage.zoom(study.hu[box].astype(np.float32), study.spacing_mm, order=1, mode="nearest", grid_mode=True)
    )


def head_box(study: Study) -> tuple[slice, ...]:
    """What holds the patient, to save blocks of air; everything where there is none."""
    found = ndimage.find_objects((study.hu > HEAD_FROM_HU).astype(np.uint8))
    return tuple(found[0]) if found else tuple(slice(0, size) for size in study.hu.shape)


def onto_slices(marked: NDArray[np.bool_], study: Study) -> NDArray[np.bool_]:
    """A mask at 1 mm back on the study's own pixels: the nearest voxel."""
    box = head_box(study)
    sizes = [one.stop - one.start for one in box]
    rows = [_nearest(size, whole) for size, whole in zip(sizes, marked.shape, strict=True)]
    marks = np.zeros(study.hu.shape, bool)
    marks[box] = marked[np.ix_(*rows)]
    return marks


def _nearest(size: int, whole: int) -> NDArray[np.intp]:
    """For each of `size` samples the one of `whole` whose centre is nearest."""
    at: Numbers = (np.arange(size) + 0.5) * whole / size - 0.5
    return np.asarray(np.clip(np.rint(at), 0, whole - 1), np.intp)
