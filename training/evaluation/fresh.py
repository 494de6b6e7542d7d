"""Tier S: phantom studies that nobody trained on. Other seeds, and by definition another lesion or scanner family.

Half of the studies have a lesion. Half of all come from the scanner family that is held out of training; of the
studies with a lesion the others, and half of these, have a lesion family that is held out. Studies without a lesion
carry every mimic that the phantom draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.study import KINDS, Doubt, Entry, Facts, Study, Truth
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import HELD_OUT_KINDS, plan_lesions
from training.phantom.lesions import KINDS as TRAINED_KINDS
from training.phantom.plan import plan_head
from training.phantom.render import Slices, render
from training.phantom.scanner import HELD_OUT_FAMILY, TRAIN_FAMILIES, Scanner, plan_scanner
from training.recipe import GENERATOR_VERSION

# No recipe's seeds reach here: they are counted in millions, and a recipe that went higher is refused by a test.
FIRST_SEED = 1 << 40
SEEDS_EACH = 1 << 20  # studies one evaluation seed may have
SHAPE = (216, 216)
PITCH_MM = (0.98, 1.18)  # within what the service takes
LOWEST_MM, HIGHEST_MM = -60.0, 82.0  # a routine head CT from the foramen magnum to the vertex
DIFFICULTY = (0.0, 1.0)


@dataclass(frozen=True)
class Drawn:
    """What one study is made of, before a voxel is computed."""

    seed: int
    sick: bool
    new_scanner: bool
    new_lesions: bool

    @property
    def tags(self) -> dict[str, str]:
        """For the subgroup table."""
        return {"held out": " and ".join(self._held_out()) or "seed only"}

    def _held_out(self) -> list[str]:
        return ["scanner"] * self.new_scanner + ["lesion family"] * (self.sick and self.new_lesions)


class FreshPhantoms:
    """A StudySource of `count` studies; the same seed and count give the same studies on every machine."""

    def __init__(self, seed: int, count: int, atlas: Atlas) -> None:
        self._atlas = atlas
        self.drawn = {f"phantom-{one.seed - FIRST_SEED}": one for one in draw(seed, count)}

    @property
    def version(self) -> str:
        """Of generator and of this tier's choice."""
        return f"fresh-1-{GENERATOR_VERSION}"

    def entries(self) -> Sequence[Entry]:
        """A patient is a seed."""
        return [Entry(uid, uid, f"seed {one.seed}", one.sick) for uid, one in self.drawn.items()]

    def doubts(self) -> Sequence[Doubt]:
        """None: we made them."""
        return ()

    def load(self, entry: Entry) -> Study:
        """Render the whole series."""
        return render_study(entry.uid, self.drawn[entry.uid], self._atlas)


def draw(seed: int, count: int) -> list[Drawn]:
    """Half sick (the odd one is), in random order.

    Raises:
        ValueError: more studies than one seed may have, or a negative seed.
    """
    if not 0 < count <= SEEDS_EACH or not 0 <= seed < SEEDS_EACH:
        raise ValueError(f"a seed of 0 to {SEEDS_EACH - 1} and 1 to {SEEDS_EACH} studies are possible")
    rng = np.random.default_rng([seed, 8])
    sick = rng.permutation(np.arange(count) < (count + 1) // 2)
    first = FIRST_SEED + seed * SEEDS_EACH
    return [_drawn(rng, first + nth, sick=bool(one)) for nth, one in enumerate(sick)]


def _drawn(rng: Generator, seed: int, *, sick: bool) -> Drawn:
    new_scanner, new_lesions = rng.random(2) < 0.5
    return Drawn(seed, sick, bool(new_scanner), bool(new_lesions or not new_scanner))


def render_study(uid: str, drawn: Drawn, atlas: Atlas) -> Study:
    """One series in slices as far apart as they are thick."""
    rng = np.random.default_rng([drawn.seed, 9])
    scanner = plan_scanner(drawn.seed, (HELD_OUT_FAMILY,) if drawn.new_scanner else TRAIN_FAMILIES)
    kinds = HELD_OUT_KINDS if drawn.new_lesions else TRAINED_KINDS
    lesions = plan_lesions(drawn.seed, DIFFICULTY, kinds) if drawn.sick else ()
    z_mm = np.arange(LOWEST_MM + rng.uniform(-5, 5), HIGHEST_MM + rng.uniform(-5, 5), scanner.slab_mm)
    pitch_mm = float(rng.uniform(*PITCH_MM))
    slices = render(atlas, plan_head(drawn.seed), lesions, scanner, z_mm.tolist(), shape=SHAPE, pitch_mm=pitch_mm)
    return _study(uid, scanner, slices, z_mm, pitch_mm)


def _study(uid: str, scanner: Scanner, slices: Slices, z_mm: NDArray[np.float64], pitch_mm: float) -> Study:
    weights = (1 << np.arange(len(KINDS), dtype=np.uint8)).reshape(1, -1, 1, 1)
    return Study(
        uid=uid,
        patient=uid,
        hu=np.round(slices.hu).astype(np.int16),
        spacing_mm=(scanner.slab_mm, pitch_mm, pitch_mm),
        z_mm=z_mm.astype(np.float32),
        truth=_truth(slices.labels, (slices.masks * weights).sum(1).astype(np.uint8)),
        facts=Facts(scanner=f"phantom {scanner.family}", slice_mm=scanner.slab_mm),
        source="phantom",
    )


def _truth(labels: NDArray[np.float32], masks: NDArray[np.uint8]) -> Truth:
    """A lesion that only grazes slices leaves the study unsaid."""
    by_label = {kind.value: bool((labels[:, nth + 1] == 1).any()) for nth, kind in enumerate(KINDS)}
    if any(by_label.values()):
        return Truth(True, by_label, labels, masks)
    return Truth(None if masks.any() else False, by_label, labels, masks)
