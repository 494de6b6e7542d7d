"""Phantom slices, drawn once and kept in a cache outside the clone: one file per head, so a cut-off run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.phantom.atlas_in import Atlas
from training.phantom.lesions import HELD_OUT_KINDS, KINDS, Lesion, plan_lesions
from training.phantom.plan import plan_head
from training.phantom.render import ABOVE_MM, BELOW_MM, Slices, bleed_extent, render
from training.phantom.scanner import HELD_OUT_FAMILY, TRAIN_FAMILIES, plan_scanner
from training.recipe import SliceSet

SLICE_SHAPE = (208, 208)
PITCH_MM = (1.02, 1.22)  # fields of view of 212 to 254 mm
SERIES_FROM_MM, SERIES_SPACING_MM = -56.0, 5.0  # a routine head CT from the foramen magnum to the vertex
IN_LESION_SHARE = 0.6  # of a bleeding head's slices lie in the bleed, the rest anywhere


@dataclass(frozen=True)
class SliceTable:
    """Slices of many heads. hu (n, H, W) int16; bits (n, H, W) uint8, bit c = channel c; labels (n, 6);
    pitch_mm (n,); head (n,) seeds; kinds (n,) the head's lesions, empty for a clean head.
    """

    hu: NDArray[np.int16]
    bits: NDArray[np.uint8]
    labels: NDArray[np.float32]
    pitch_mm: NDArray[np.float32]
    head: NDArray[np.int64]
    kinds: NDArray[np.str_]

    def masks(self, rows: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.bool_]:
        """(n, 5, H, W) masks of the chosen rows."""
        return np.stack([(self.bits[rows] >> channel) & 1 for channel in range(5)], 1).astype(bool)


def draw_slices(
    wanted: SliceSet, atlas: Atlas, cache_dir: Path, tell: Callable[[int, int], None] = lambda _done, _of: None
) -> SliceTable:
    """The set's slices, from the cache where they are, else drawn (0.15 s per slice and core)."""
    folder = cache_dir / "slices" / wanted.key
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for nth in range(wanted.heads):
        file = folder / f"{nth:05d}.npz"
        if not file.exists():
            partial = file.with_suffix(".partial.npz")
            np.savez(partial, **draw_head(wanted, wanted.first_seed + nth, atlas))
            partial.replace(file)
        with np.load(file) as stored:
            parts.append({name: stored[name] for name in stored.files})
        tell(nth + 1, wanted.heads)
    return SliceTable(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def draw_head(wanted: SliceSet, seed: int, atlas: Atlas) -> dict[str, NDArray[np.generic]]:
    """All columns of a SliceTable for one head."""
    rng = np.random.default_rng([seed, 7])
    lesions = lesions_of(wanted, seed, rng)
    scanner = plan_scanner(seed, (HELD_OUT_FAMILY,) if wanted.held_out_scanner else TRAIN_FAMILIES)
    centres = rng.uniform(BELOW_MM, ABOVE_MM, wanted.slices_per_head)
    if wanted.series:
        centres = SERIES_FROM_MM + rng.uniform(-4, 4) + SERIES_SPACING_MM * np.arange(wanted.slices_per_head)
    elif lesions:
        inside = rng.random(wanted.slices_per_head) < IN_LESION_SHARE
        centres = np.where(inside, rng.uniform(*bleed_extent(lesions), wanted.slices_per_head), centres)
    pitch_mm = float(rng.uniform(*PITCH_MM))
    slices = render(atlas, plan_head(seed), lesions, scanner, centres.tolist(), shape=SLICE_SHAPE, pitch_mm=pitch_mm)
    return _columns(slices, pitch_mm, seed, "+".join(lesion.kind for lesion in lesions))


def lesions_of(wanted: SliceSet, seed: int, rng: np.random.Generator | None = None) -> tuple[Lesion, ...]:
    """The lesions that the set's head of this seed has; `rng` is the head's own, drawn from once."""
    kinds = HELD_OUT_KINDS if wanted.held_out_lesions else KINDS
    bleeds = (rng or np.random.default_rng([seed, 7])).random() < wanted.lesion_share
    return plan_lesions(seed, wanted.difficulty, kinds) if bleeds else ()


def _columns(slices: Slices, pitch_mm: float, seed: int, kinds: str) -> dict[str, NDArray[np.generic]]:
    count = len(slices.hu)
    weights = (1 << np.arange(5, dtype=np.uint8)).reshape(1, 5, 1, 1)
    return {
        "hu": np.round(slices.hu).astype(np.int16),
        "bits": (slices.masks * weights).sum(1).astype(np.uint8),
        "labels": slices.labels,
        "pitch_mm": np.full(count, pitch_mm, np.float32),
        "head": np.full(count, seed, np.int64),
        "kinds": np.full(count, kinds),
    }
