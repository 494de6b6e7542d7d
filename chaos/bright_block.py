"""How the stand-in model answers: a rule that a ledger can foretell. Pure.

An image is positive (intraparenchymal, and so any) when at least ``SMALLEST_MM2`` of it lie in ``BLOCK_HU``; what is
there is its segmentation. Everything else is plainly negative. Hardly a model, and meant so: docs/decisions/0010.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chaos.scenario import Mood

BLOCK_HU = (60.0, 80.0)  # fresh blood; above brain (35 ± noise), far below bone
SMALLEST_MM2 = 300.0  # 3 cm²
SURE, SURELY_NOT = 0.97, 0.02  # far from every operating point
LABELS = 6  # contracts/tensors.py: any, then five lesions
LESION = 1  # place of intraparenchymal among them
GRID_SIZE, GRID_PITCH_MM = 72, 3.2  # the real model's 230 mm, coarser: an answer is 100 kB instead of 400

HU = NDArray[np.float16]
Answers = tuple[NDArray[np.float32], NDArray[np.float32]]


def positive(hu: NDArray[Any], spacing_mm: tuple[float, float]) -> bool:
    """Whether one image (rows, columns) in HU is called positive. ``spacing_mm``: (row, column)."""
    return float(_block(hu).sum()) * spacing_mm[0] * spacing_mm[1] >= SMALLEST_MM2


def answers(hu: NDArray[Any], spacing_mm: NDArray[Any]) -> Answers:
    """Batch (N, rows, columns) and spacing (N, 2) → PROBABILITIES (N, 6), SEGMENTATION (N, 5, grid, grid)."""
    probabilities = np.full((len(hu), LABELS), SURELY_NOT, dtype=np.float32)
    segmentation = np.zeros((len(hu), LABELS - 1, GRID_SIZE, GRID_SIZE), dtype=np.float32)
    for nth, (image, spacing) in enumerate(zip(hu, spacing_mm, strict=True)):
        pair = (float(spacing[0]), float(spacing[1]))
        if positive(image, pair):
            probabilities[nth, : LESION + 1] = SURE
            segmentation[nth, LESION - 1] = _on_grid(_block(image), pair)
    return probabilities, segmentation


def spoilt(sound: Answers, mood: Mood) -> Answers:
    """What the mood makes of an answer."""
    spoil = _MOODS.get(mood)
    return spoil(sound) if spoil else sound


def _not_numbers(sound: Answers) -> Answers:
    return np.full_like(sound[0], np.nan), np.full_like(sound[1], np.nan)


def _one_label_more(sound: Answers) -> Answers:
    return np.pad(sound[0], ((0, 0), (0, 1))), sound[1]


_MOODS: dict[Mood, Callable[[Answers], Answers]] = {Mood.NAN: _not_numbers, Mood.WRONG_SHAPE: _one_label_more}


def _block(hu: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray((hu >= BLOCK_HU[0]) & (hu <= BLOCK_HU[1]))


def _on_grid(mask: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> NDArray[np.bool_]:
    """Nearest samples on the served grid, which shares its centre with the image; nothing beyond the image."""
    along = (np.arange(GRID_SIZE) - (GRID_SIZE - 1) / 2) * GRID_PITCH_MM
    places = [
        np.rint(along / spacing + (size - 1) / 2).astype(int)
        for spacing, size in zip(spacing_mm, mask.shape, strict=True)
    ]
    inside = [(place >= 0) & (place < size) for place, size in zip(places, mask.shape, strict=True)]
    rows, columns = (np.clip(place, 0, size - 1) for place, size in zip(places, mask.shape, strict=True))
    return np.asarray(mask[np.ix_(rows, columns)] & np.outer(*inside))
