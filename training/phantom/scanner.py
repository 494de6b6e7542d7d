"""What the scanner adds: kernel, correlated noise, cupping, streaks, motion. All arrays (slice, row, column) in HU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from training.phantom.artefacts import projected_artefacts
from training.phantom.space import Field

LOWEST_HU, HIGHEST_HU = -1024, 3071  # what 12 bits hold; padding outside the circle of a real scanner is lower still


@dataclass(frozen=True)
class Scanner:
    """One protocol. Lengths in mm, noise and artefacts in HU."""

    family: str
    slab_mm: float
    blur_mm: float
    sharpen: float  # unsharp share: edge-enhancing kernels overshoot at the inner table
    noise_hu: float
    grain_mm: float
    cupping_mm: float
    cupping_hu: float  # bright rim inside the skull that beam-hardening correction leaves
    shading_hu: float
    streak_hu: float
    motion_mm: float
    hardening_hu: float = 0.0  # dark bands between dense bones (petrous pyramids) and bright ones beside them
    metal_hu: float = 0.0  # streaks of clips and fillings, where a slice holds one


@dataclass(frozen=True)
class Protocol:
    """Ranges one family of scanners is drawn from."""

    slab_mm: tuple[float, float]
    blur_mm: tuple[float, float]
    sharpen: tuple[float, float]
    noise_hu: tuple[float, float]


PROTOCOLS = {
    "soft": Protocol((4.0, 6.0), (0.3, 0.9), (0.0, 0.2), (1.5, 4.0)),
    "thick": Protocol((6.0, 9.0), (0.4, 1.0), (0.0, 0.3), (1.5, 4.0)),
    "thin": Protocol((1.5, 3.5), (0.3, 0.8), (0.0, 0.3), (3.0, 7.0)),
    # Held out of training: edge-enhancing kernel, strong grain.
    "sharp": Protocol((2.5, 5.0), (0.0, 0.2), (0.5, 1.0), (4.0, 7.0)),
}
TRAIN_FAMILIES = ("soft", "thick", "thin")
HELD_OUT_FAMILY = "sharp"


def plan_scanner(seed: int, families: tuple[str, ...] = TRAIN_FAMILIES) -> Scanner:
    """Draw one protocol of the families allowed."""
    rng = np.random.default_rng([seed, 5])
    family = str(rng.choice(families))
    p = PROTOCOLS[family]
    return Scanner(
        family=family,
        slab_mm=rng.uniform(*p.slab_mm),
        blur_mm=rng.uniform(*p.blur_mm),
        sharpen=rng.uniform(*p.sharpen),
        noise_hu=rng.uniform(*p.noise_hu),
        grain_mm=rng.uniform(0.3, 1.1),
        cupping_mm=rng.uniform(2.5, 12),
        cupping_hu=rng.uniform(-3, 22) * (rng.random() < 0.7),
        shading_hu=rng.uniform(0, 5),
        streak_hu=rng.uniform(1.5, 9) if rng.random() < 0.35 else 0.0,
        motion_mm=rng.uniform(1, 4) if rng.random() < 0.08 else 0.0,
        hardening_hu=rng.uniform(2, 14) if rng.random() < 0.45 else 0.0,
        metal_hu=rng.uniform(20, 220),
    )


def scan(scanner: Scanner, clean: Field, depth: Field, pitch_mm: float, seed: int, *, noisy: bool = True) -> Field:
    """`clean` slabs as this scanner would deliver them; `depth` is mm inside the inner table."""
    rng = np.random.default_rng([seed, 6])
    image = clean + scanner.cupping_hu * np.exp(-np.maximum(depth, 0) / scanner.cupping_mm) * (depth > -1)
    image = _kernel(scanner, image, pitch_mm)
    if scanner.motion_mm:
        image = _moved(rng, image, scanner.motion_mm / pitch_mm)
    inside = (clean > -300).astype(np.float32)
    image = image + inside * (_shading(rng, image.shape, scanner.shading_hu) + _streaks(rng, clean, scanner))
    image = image + projected_artefacts(rng, clean, pitch_mm, scanner.hardening_hu, scanner.metal_hu)
    if noisy:
        image = image + noise(rng, image.shape, scanner.noise_hu, scanner.grain_mm / pitch_mm) * (0.4 + 0.6 * inside)
    return np.asarray(np.clip(image, LOWEST_HU, HIGHEST_HU), np.float32)


def noise(rng: Generator, shape: tuple[int, ...], sigma_hu: float, grain_px: float) -> Field:
    """Correlated noise of the given standard deviation, independent between slices."""
    grain = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), (0, grain_px, grain_px))
    return np.asarray(grain * (sigma_hu / max(float(grain.std()), 1e-6)), np.float32)


def _kernel(scanner: Scanner, image: Field, pitch_mm: float) -> Field:
    blur = scanner.blur_mm / pitch_mm
    image = ndimage.gaussian_filter(image, (0, blur, blur)) if blur > 0.1 else image
    if scanner.sharpen > 0.05:
        wide = ndimage.gaussian_filter(image, (0, 1.0 / pitch_mm, 1.0 / pitch_mm))
        image = image + scanner.sharpen * (image - wide)
    return np.asarray(image, np.float32)


def _moved(rng: Generator, image: Field, by_px: float) -> Field:
    angle = rng.uniform(0, 2 * np.pi)
    shifted = ndimage.shift(image, (0, by_px * np.sin(angle), by_px * np.cos(angle)), order=1, mode="nearest")
    return np.asarray(0.65 * image + 0.35 * shifted, np.float32)


def _shading(rng: Generator, shape: tuple[int, ...], amount_hu: float) -> Field:
    count, height, width = shape
    coarse = rng.normal(0, amount_hu, (count, 4, 4))
    return np.asarray(ndimage.zoom(coarse, (1, height / 4, width / 4), order=1), np.float32)


def _streaks(rng: Generator, clean: Field, scanner: Scanner) -> Field:
    """Dark and bright rays from dense bone, strongest where a slice holds much of it (petrous level)."""
    if not scanner.streak_hu:
        return np.zeros_like(clean)
    _, height, width = clean.shape
    bone = (clean > 900).mean((1, 2), dtype=np.float32)
    row, column = np.mgrid[:height, :width].astype(np.float32)
    streaks = np.zeros_like(clean)
    for _ in range(2):
        y, x = height * rng.uniform(0.1, 0.9), width * rng.uniform(0.1, 0.9)
        angle = np.arctan2(row - y, column - x)
        nodes = int(rng.integers(16, 200))
        rays = np.interp(angle, np.linspace(-np.pi, np.pi, nodes), rng.normal(0, 1, nodes) * rng.random(nodes))
        streaks += rays / (1 + np.hypot(row - y, column - x) / 60)
    strength = scanner.streak_hu * np.clip(bone / 0.08, 0.2, 1.5)
    return np.asarray(strength[:, None, None] * streaks, np.float32)
