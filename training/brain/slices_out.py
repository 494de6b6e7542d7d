"""Phantom slices with what lies inside the skull, from the neck to above the vertex; a cached file a head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.brain.bodies import body
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import plan_lesions
from training.phantom.plan import plan_head
from training.phantom.render import render
from training.phantom.scanner import HELD_OUT_FAMILY, TRAIN_FAMILIES, plan_scanner

VERSION = 1  # raise it when what is drawn changes
SIDE, PITCH_MM = 208, (1.02, 1.22)  # fields of view of 212 to 254 mm
LOWEST_MM, HIGHEST_MM = -105.0, 112.0  # from the teeth to the air above the head: neither end holds brain
LESION_SHARE = 0.6  # blood under the skull belongs inside
BODY_SHARE = 0.35  # slices of something else, for each slice of a head
SEEDS_APART = 10_000


@dataclass(frozen=True)
class BrainSet:
    """Which heads: seeds first_seed … first_seed + heads. ``held_out``: a scanner family never trained on."""

    first_seed: int
    heads: int
    slices_per_head: int
    held_out: bool = False


@dataclass(frozen=True)
class BrainTable:
    """hu (n, H, W) int16; inside (n, H, W) bool; pitch_mm (n,); head (n,): the seed, −1 for what is no head."""

    hu: NDArray[np.int16]
    inside: NDArray[np.bool_]
    pitch_mm: NDArray[np.float32]
    head: NDArray[np.int64]


def draw(wanted: BrainSet, atlas: Atlas, cache: Path, tell: Callable[[int], None] = lambda _done: None) -> BrainTable:
    """The set, from the cache where it is there."""
    folder = cache / "brain" / str(VERSION)
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(_heads(wanted, atlas, folder, tell))
    bodies = int(wanted.heads * wanted.slices_per_head * BODY_SHARE)
    pitch = np.random.default_rng([wanted.first_seed, 5]).uniform(0.8, 2.0, bodies).astype(np.float32)
    other = [body(wanted.first_seed * SEEDS_APART + nth, SIDE, float(p)) for nth, p in enumerate(pitch)]
    hu = np.concatenate([*(part["hu"] for part in parts), np.round(np.stack(other)).astype(np.int16)])
    nothing = np.zeros((bodies, SIDE, SIDE), bool)
    return BrainTable(
        hu=hu,
        inside=np.concatenate([*(part["inside"] for part in parts), nothing]),
        pitch_mm=np.concatenate([*(part["pitch_mm"] for part in parts), pitch]),
        head=np.concatenate([*(part["head"] for part in parts), np.full(bodies, -1)]),
    )


def _heads(
    wanted: BrainSet, atlas: Atlas, folder: Path, tell: Callable[[int], None]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    for nth in range(wanted.heads):
        seed = wanted.first_seed + nth
        file = folder / f"{seed}-{wanted.slices_per_head}-{int(wanted.held_out)}.npz"
        if not file.exists():
            partial = file.with_suffix(".partial.npz")
            np.savez_compressed(partial, **_head(wanted, seed, atlas))
            partial.replace(file)
        with np.load(file) as stored:
            yield {name: stored[name] for name in stored.files}
        tell(nth + 1)


def _head(wanted: BrainSet, seed: int, atlas: Atlas) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng([seed, 17])
    lesions = plan_lesions(seed, (0.0, 0.6)) if rng.random() < LESION_SHARE else ()
    scanner = plan_scanner(seed, (HELD_OUT_FAMILY,) if wanted.held_out else TRAIN_FAMILIES)
    centres = rng.uniform(LOWEST_MM, HIGHEST_MM, wanted.slices_per_head)
    pitch_mm = float(rng.uniform(*PITCH_MM))
    slices = render(atlas, plan_head(seed), lesions, scanner, centres.tolist(), shape=(SIDE, SIDE), pitch_mm=pitch_mm)
    count = len(centres)
    return {
        "hu": np.round(slices.hu).astype(np.int16),
        "inside": slices.inside,
        "pitch_mm": np.full(count, pitch_mm, np.float32),
        "head": np.full(count, seed, np.int64),
    }
