"""What a head CT is not: trunks, necks, limbs, water and noise, painted as crudely as a refusal needs. Pure.

A network that has only seen heads calls any grey disc a brain; these are what it must answer *nothing* to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Picture: TypeAlias = NDArray[np.float32]
AIR_HU, FAT_HU, MUSCLE_HU, LUNG_HU, WATER_HU = -1000.0, -100.0, 50.0, -850.0, 0.0
BONE_HU = (350.0, 1100.0)


class _Canvas:
    """A matrix with its millimetres; every shape is an ellipse turned and bent at random."""

    def __init__(self, side: int, pitch_mm: float, rng: np.random.Generator) -> None:
        rows, columns = (np.mgrid[:side, :side] - (side - 1) / 2) * pitch_mm
        bend = ndimage.zoom(rng.normal(0, 4.0, (2, 5, 5)), (1, side / 5, side / 5), order=3)[:, :side, :side]
        self.rows, self.columns = rows + bend[0], columns + bend[1]
        self.picture = np.full((side, side), AIR_HU, np.float32)
        self.rng = rng

    def ellipse(self, row: float, column: float, half_row: float, half_column: float, hu: float) -> None:
        """Paint one; centre and half axes in mm."""
        inside = ((self.rows - row) / half_row) ** 2 + ((self.columns - column) / half_column) ** 2 < 1
        self.picture[inside] = hu

    def bone(self, row: float, column: float, half_mm: float) -> None:
        """Cortex around marrow."""
        self.ellipse(row, column, half_mm, half_mm, float(self.rng.uniform(*BONE_HU)))
        self.ellipse(row, column, half_mm * 0.6, half_mm * 0.6, float(self.rng.uniform(60, 300)))


def _trunk(canvas: _Canvas, rng: np.random.Generator) -> tuple[float, float]:
    half_row, half_column = rng.uniform(80, 130), rng.uniform(120, 180)
    canvas.ellipse(0, 0, half_row, half_column, FAT_HU)
    canvas.ellipse(0, 0, half_row * rng.uniform(0.7, 0.93), half_column * rng.uniform(0.75, 0.93), MUSCLE_HU)
    return half_row, half_column


def _chest(canvas: _Canvas, rng: np.random.Generator) -> None:
    half_row, half_column = _trunk(canvas, rng)
    for side in (-1, 1):
        canvas.ellipse(0, side * half_column * 0.45, half_row * 0.65, half_column * 0.33, LUNG_HU)
    canvas.ellipse(-half_row * 0.1, 12, rng.uniform(25, 45), rng.uniform(30, 50), rng.uniform(30, 60))
    canvas.bone(half_row * 0.55, 0, rng.uniform(12, 20))
    for angle in np.linspace(0, 2 * np.pi, int(rng.integers(8, 16)), endpoint=False):
        canvas.bone(np.sin(angle) * half_row * 0.78, np.cos(angle) * half_column * 0.82, rng.uniform(3, 7))


def _abdomen(canvas: _Canvas, rng: np.random.Generator) -> None:
    half_row, half_column = _trunk(canvas, rng)
    canvas.ellipse(-10, -half_column * 0.4, half_row * 0.55, half_column * 0.4, rng.uniform(35, 90))
    canvas.ellipse(5, half_column * 0.45, half_row * 0.35, half_column * 0.25, rng.uniform(30, 80))
    for _ in range(int(rng.integers(2, 7))):
        row, column = rng.uniform(-0.5, 0.5, 2)
        tall, wide = rng.uniform(6, 22, 2)
        hu = rng.choice([LUNG_HU, FAT_HU, WATER_HU, 150.0])
        canvas.ellipse(row * half_row, column * half_column, tall, wide, hu)
    canvas.bone(half_row * 0.5, 0, rng.uniform(15, 24))


def _pelvis(canvas: _Canvas, rng: np.random.Generator) -> None:
    _, half_column = _trunk(canvas, rng)
    for side in (-1, 1):
        canvas.bone(10, side * half_column * 0.55, rng.uniform(18, 32))
    canvas.ellipse(-5, 0, rng.uniform(20, 45), rng.uniform(25, 50), WATER_HU + rng.uniform(0, 20))


def _neck(canvas: _Canvas, rng: np.random.Generator) -> None:
    half = rng.uniform(50, 80)
    canvas.ellipse(0, 0, half * rng.uniform(0.9, 1.2), half, FAT_HU)
    canvas.ellipse(0, 0, half * 0.9, half * 0.9, MUSCLE_HU)
    canvas.bone(8, 0, rng.uniform(14, 22))
    canvas.ellipse(12, 0, rng.uniform(5, 9), rng.uniform(5, 9), rng.uniform(10, 45))  # the cord in its canal
    canvas.ellipse(-half * 0.5, 0, rng.uniform(6, 11), rng.uniform(6, 11), AIR_HU)
    if rng.random() < 0.5:
        for angle in np.linspace(np.pi * 1.1, np.pi * 1.9, 25):
            canvas.bone(np.sin(angle) * half * 0.9, np.cos(angle) * half * 0.75, rng.uniform(4, 7))


def _limbs(canvas: _Canvas, rng: np.random.Generator) -> None:
    for side in (-1, 1) if rng.random() < 0.7 else (0,):
        half = rng.uniform(35, 85)
        centre = side * (half + rng.uniform(0, 15))
        canvas.ellipse(0, centre, half, half, FAT_HU)
        canvas.ellipse(0, centre, half * 0.85, half * 0.85, MUSCLE_HU)
        canvas.bone(rng.uniform(-10, 10), centre, rng.uniform(9, 20))


def _vessel_of_water(canvas: _Canvas, rng: np.random.Generator) -> None:
    """A quality phantom: a wall of plastic, or none, around water or something of another even density."""
    half = rng.uniform(60, 125)
    if rng.random() < 0.5:
        canvas.ellipse(0, 0, half + rng.uniform(3, 12), half + rng.uniform(3, 12), rng.uniform(80, 400))
    canvas.ellipse(0, 0, half, half, rng.choice([WATER_HU, rng.uniform(-120, 130)]))
    for _ in range(int(rng.integers(0, 5))):
        row, column = rng.uniform(-half / 2, half / 2, 2)
        tall, wide = rng.uniform(4, 15, 2)
        canvas.ellipse(row, column, tall, wide, rng.uniform(-1000, 900))


def _nothing(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Air, a table, or noise all over."""
    if rng.random() < 0.5:
        canvas.ellipse(120, 0, rng.uniform(5, 15), 200, rng.uniform(-700, 100))
    else:
        canvas.picture += rng.normal(rng.uniform(900, 1100), rng.uniform(20, 400), canvas.picture.shape)


BODIES: tuple[Callable[[_Canvas, np.random.Generator], None], ...] = (
    _chest,
    _abdomen,
    _pelvis,
    _neck,
    _limbs,
    _vessel_of_water,
    _nothing,
)


def body(seed: int, side: int, pitch_mm: float) -> Picture:
    """One slice (side, side) in HU that holds no brain; kind, size and scanner by seed."""
    rng = np.random.default_rng([seed, 31])
    canvas = _Canvas(side, pitch_mm, rng)
    BODIES[seed % len(BODIES)](canvas, rng)
    grain = ndimage.gaussian_filter(rng.normal(0, 1, canvas.picture.shape), rng.uniform(0, 1.2))
    noise = grain / max(float(grain.std()), 1e-6) * rng.uniform(3, 18)
    blurred = ndimage.gaussian_filter(canvas.picture, rng.uniform(0.4, 1.5))
    return np.clip(blurred + noise, -1024, 3071).astype(np.float32)
