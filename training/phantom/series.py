"""A whole phantom study: what a scanner sends of one head, and what is known to be in it.

`plan_series` draws everything from the seed; `draw_series` computes the pixels. Drawn at about 0.85 mm and enlarged to
the scanner's matrix, where the noise is added: a head holds nothing finer that the phantom knows of.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from training.data.study import GRAZED, KINDS, Facts, Study, Truth
from training.phantom.anatomy import AIR_HU, paint_head
from training.phantom.atlas_in import Atlas
from training.phantom.couch import paint_couch
from training.phantom.lesions import CHANNEL_OF, HELD_OUT_KINDS, Lesion, paint_each, plan_lesions
from training.phantom.lesions import KINDS as TRAINED_KINDS
from training.phantom.plan import HeadPlan, plan_head
from training.phantom.render import TABLE_MM, bleed_extent, labels_of
from training.phantom.scanner import (
    HELD_OUT_FAMILY,
    HIGHEST_HU,
    LOWEST_HU,
    TRAIN_FAMILIES,
    Scanner,
    noise,
    plan_scanner,
    scan,
)
from training.phantom.space import Field, Space, View, sample_space

DRAWN_SIDE = 272
PLANES_AT_ONCE = 16  # memory stays below 200 MB however long the series is
PLANE_MM = 1.8  # planes within a slab lie at most this far apart
LOOKED_EVERY = 8  # drawn pixels: a coarse picture tells where the head is
OUTSIDE_MM = -60.0  # depth of air, which no formula looks into
SEEN_SHARE = 0.45  # of a slab: a lesion in half of it is in the slice
MOVED_SHARE = 0.3  # of the pieces of a series in which the patient moved
ODD_SHARES = (0.15, 0.06, 0.05)  # of series: gantry tilted, slices missing, slices sent twice
LONGEST = 2000  # slices
LOWEST_MM, HIGHEST_MM = (-104.0, -52.0), (74.0, 104.0)  # where series begin and end
# (thinnest, thickest slice in mm, share of studies)
THICKNESS_MM = ((0.5, 1.25, 0.08), (1.25, 3.0, 0.22), (3.0, 5.0, 0.7))
USUAL_MM = (0.5, 0.6, 0.625, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.75, 4.0, 4.8, 5.0)
KERNELS = {
    "soft": ("H30s", "STANDARD", "FC21", "UB", "J40s"),
    "thick": ("H31s", "SOFT", "FC26", "UA", "Hr38"),
    "thin": ("H37s", "STANDARD", "FC64", "UB", "Hr40"),
    "sharp": ("H60s", "BONEPLUS", "FC30", "D", "Hr59"),
}
MODELS = ("Phantom 4", "Phantom 16", "Phantom 64", "Phantom 128", "Phantom 320", "Phantom Dual")
# (slope, intercept, signed, value outside the circle of reconstruction in HU or None)
RESCALES = (
    (1.0, -1024.0, False, None),
    (1.0, -1024.0, False, -1024),
    (1.0, -1024.0, True, -3024),
    (1.0, 0.0, True, None),
    (1.0, 0.0, True, -2000),
    (1.0, -8192.0, False, None),
    (0.5, -1024.0, False, None),
    (2.0, -1024.0, True, None),
)


@dataclass(frozen=True)
class Wish:
    """What the caller fixes; None: drawn from the seed."""

    lesion: str | None = None  # a kind of training.phantom.lesions, or "none"
    lesion_share: float = 0.5  # of studies, where `lesion` is not fixed
    difficulty: tuple[float, float] = (0.0, 1.0)
    slice_mm: float | None = None
    slices: int | None = None
    matrix: int = 512
    held_out_lesions: bool = False
    held_out_scanner: bool = False
    plain: bool = False  # no missing, repeated, tilted or padded slices


@dataclass(frozen=True)
class Rescale:
    """Stored value × slope + intercept = HU. `padding_hu` outside the circle of reconstruction."""

    slope: float
    intercept: float
    signed: bool
    padding_hu: int | None


@dataclass(frozen=True)
class SeriesPlan:
    """One study before a voxel is computed. Lengths in mm, angles in degrees."""

    seed: int
    head: HeadPlan
    lesions: tuple[Lesion, ...]
    scanner: Scanner
    spacing_mm: float  # between the centres of two slices; the slices are scanner.slab_mm thick
    z_mm: tuple[float, ...]  # table positions of what was kept, upwards
    missing: int
    repeated: tuple[int, ...]  # indices into z_mm: sent twice
    gantry_deg: float
    matrix: int
    pitch_mm: float
    rescale: Rescale
    facts: Facts
    tube_kv: int
    tube_ma: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the lesions."""
        return tuple(lesion.kind for lesion in self.lesions)


@dataclass(frozen=True, eq=False)
class DrawnSeries:
    """`study`, and each lesion's own mask (n, H, W) in the order of the plan's lesions."""

    plan: SeriesPlan
    study: Study
    each: tuple[NDArray[np.bool_], ...]


def plan_series(seed: int, wish: Wish = Wish()) -> SeriesPlan:
    """Draw one study. The same seed and wish give the same study on every machine."""
    rng = np.random.default_rng([seed, 10])
    head, scanner = _posed(rng, plan_head(seed)), plan_scanner(seed, _families(wish))
    slab_mm = wish.slice_mm or _thickness(rng)
    spacing_mm = slab_mm * float(rng.choice([1.0, 1.0, 1.0, 0.5, rng.uniform(0.6, 1.0), rng.uniform(1.0, 1.4)]))
    wide_mm = float(rng.choice([rng.uniform(210, 256), rng.uniform(195, 350)], p=[0.85, 0.15]))
    tilted, lossy, doubled = (rng.random(3) < ODD_SHARES) & (not wish.plain)
    lesions = lesions_of(seed, wish)
    z_mm = _positions(rng, wish.slices, spacing_mm, lesions)
    kept, missing = _gaps(rng, z_mm) if lossy else (z_mm, 0)
    # Thin slices get fewer photons.
    quiet = replace(scanner, slab_mm=slab_mm, noise_hu=scanner.noise_hu * float(np.clip((4 / slab_mm) ** 0.4, 0.9, 2)))
    return SeriesPlan(
        seed=seed,
        head=head,
        lesions=lesions,
        scanner=quiet,
        spacing_mm=spacing_mm,
        z_mm=kept,
        missing=missing,
        repeated=_repeated(rng, len(kept)) if doubled else (),
        gantry_deg=float(rng.uniform(-25, 25)) if tilted else 0.0,
        matrix=wish.matrix,
        pitch_mm=wide_mm / wish.matrix,
        rescale=Rescale(*RESCALES[0 if wish.plain else int(rng.integers(len(RESCALES)))]),
        facts=_facts(rng, head, quiet),
        tube_kv=int(rng.choice([100, 120, 120, 120, 130, 140])),
        tube_ma=int(rng.integers(80, 420)),
    )


def lesions_of(seed: int, wish: Wish) -> tuple[Lesion, ...]:
    """What the study of this seed has: cheap, for entries."""
    if wish.lesion == "none":
        return ()
    if wish.lesion is not None:
        return plan_lesions(seed, wish.difficulty, (wish.lesion,))[:1]
    if np.random.default_rng([seed, 11]).random() >= wish.lesion_share:
        return ()
    return plan_lesions(seed, wish.difficulty, HELD_OUT_KINDS if wish.held_out_lesions else TRAINED_KINDS)


def _families(wish: Wish) -> tuple[str, ...]:
    return (HELD_OUT_FAMILY,) if wish.held_out_scanner else TRAIN_FAMILIES


def _posed(rng: Generator, head: HeadPlan) -> HeadPlan:
    """One patient in ten lies badly: turned, bent or far off the centre."""
    if rng.random() > 0.1:
        return head
    x, y = head.shape.centre_mm
    pose = replace(
        head.shape,
        yaw_deg=head.shape.yaw_deg + rng.uniform(-30, 30),
        roll_deg=head.shape.roll_deg + rng.uniform(-10, 10),
        tilt_deg=head.shape.tilt_deg + rng.uniform(-14, 14),
        centre_mm=(x + rng.uniform(-14, 14), y + rng.uniform(-12, 12)),
    )
    return replace(head, shape=pose)


def _thickness(rng: Generator) -> float:
    low, high, _ = THICKNESS_MM[int(rng.choice(len(THICKNESS_MM), p=[share for *_, share in THICKNESS_MM]))]
    return float(rng.choice([mm for mm in USUAL_MM if low <= mm <= high]))


def _positions(rng: Generator, slices: int | None, spacing_mm: float, lesions: tuple[Lesion, ...]) -> tuple[float, ...]:
    low, high = rng.uniform(*LOWEST_MM), rng.uniform(*HIGHEST_MM)
    if slices is not None:  # a wished number lies around the lesion, or where a routine scan has its middle
        short = lesions and spacing_mm * slices < high - low
        middle = sum(bleed_extent(lesions)) / 2 if short else (low + high) / 2
        low = middle - spacing_mm * (slices - 1) / 2
    count = slices or int(np.clip((high - low) / spacing_mm, 1, LONGEST))
    return tuple(float(low + nth * spacing_mm) for nth in range(count))


def _gaps(rng: Generator, z_mm: tuple[float, ...]) -> tuple[tuple[float, ...], int]:
    """One to three slices from the inside are lost."""
    if len(z_mm) < 8:
        return z_mm, 0
    lost = set(rng.choice(np.arange(1, len(z_mm) - 1), int(rng.integers(1, 4)), replace=False).tolist())
    return tuple(z for nth, z in enumerate(z_mm) if nth not in lost), len(lost)


def _repeated(rng: Generator, count: int) -> tuple[int, ...]:
    return tuple(sorted(rng.choice(count, min(count, int(rng.integers(1, 4))), replace=False).tolist()))


def _facts(rng: Generator, head: HeadPlan, scanner: Scanner) -> Facts:
    """Age follows the atrophy that was drawn, with the spread that people have."""
    worn = (head.shape.sulcus_shift + 0.25) / 0.6 * 0.6 + (head.shape.ventricle_growth_mm + 1.5) / 7 * 0.4
    age = float(np.clip(20 + 65 * worn + rng.normal(0, 10), 18, 97))
    kernel = str(rng.choice(KERNELS[scanner.family]))
    model = f"SYNTHETIC {rng.choice(MODELS)}"
    return Facts(round(age), str(rng.choice(["F", "M"])), model, round(scanner.slab_mm, 3), kernel)


def draw_series(plan: SeriesPlan, atlas: Atlas, tell: Callable[[int], None] = lambda _done: None) -> DrawnSeries:
    """Compute the pixels, some slices at a time; `tell` hears how many slices are done."""
    step = max(1, PLANES_AT_ONCE // _per_slab(plan))
    hu, each = [], []
    for nth, first in enumerate(range(0, len(plan.z_mm), step)):
        piece = _piece(plan, atlas, plan.z_mm[first : first + step], nth)
        hu.append(piece[0])
        each.append(piece[1])
        tell(min(first + step, len(plan.z_mm)))
    masks = np.concatenate(each, 1) if plan.lesions else np.zeros((0, len(plan.z_mm), plan.matrix, plan.matrix), bool)
    return DrawnSeries(plan, _study(plan, np.concatenate(hu), masks), tuple(masks))


def _per_slab(plan: SeriesPlan) -> int:
    return max(1, round(plan.scanner.slab_mm / PLANE_MM))


def _piece(
    plan: SeriesPlan, atlas: Atlas, z_mm: Sequence[float], nth: int
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """HU (n, H, W) and masks (lesions, n, H, W) of some neighbouring slices."""
    per_slab = _per_slab(plan)
    offsets = (np.arange(per_slab) - (per_slab - 1) / 2) * plan.scanner.slab_mm / per_slab
    planes = tuple(float(z + o) for z in z_mm for o in offsets)
    side = min(DRAWN_SIDE, plan.matrix)
    pitch_mm = plan.pitch_mm * plan.matrix / side
    clean = np.full((len(z_mm), side, side), AIR_HU, np.float32)
    depth = np.full_like(clean, OUTSIDE_MM)
    shares = np.zeros((len(plan.lesions), *clean.shape), np.float32)
    window = _window(plan, atlas, planes, side, pitch_mm)
    if window is not None:
        _paint(plan, atlas, View((side, side), pitch_mm, planes, plan.gantry_deg, window), (clean, depth, shares))
    seed = plan.seed + ((nth + 1) << 48)
    _couch(plan, clean, pitch_mm)
    rng = np.random.default_rng([seed, 12])
    moved = plan.scanner.motion_mm if rng.random() < MOVED_SHARE else 0.0
    scanned = scan(replace(plan.scanner, motion_mm=moved), clean, depth, pitch_mm, seed, noisy=False)
    hu = _enlarged(scanned, plan.matrix)
    grain = noise(rng, hu.shape, plan.scanner.noise_hu, plan.scanner.grain_mm / plan.pitch_mm)
    hu += grain * np.where(hu > -300, 1.0, 0.4).astype(np.float32)
    masks = np.stack([_enlarged(share, plan.matrix) > SEEN_SHARE for share in shares]) if len(shares) else shares > 0
    return np.round(np.clip(hu, LOWEST_HU, HIGHEST_HU)).astype(np.int16), masks


def _paint(plan: SeriesPlan, atlas: Atlas, view: View, into: tuple[Field, Field, Field]) -> None:
    """Clean slabs, depth and each lesion's share of the slab, into the view's window."""
    clean, depth, shares = into
    window = view.window or (0, view.shape[0], 0, view.shape[1])
    space = _space(plan, atlas, view)
    picture = paint_head(replace(plan.head, couch=None), space)
    masks = paint_each(plan.head, plan.lesions, space, picture)
    top, bottom, left, right = window
    slabs = (len(clean), -1, bottom - top, right - left)
    clean[:, top:bottom, left:right] = picture.reshape(slabs).mean(1)
    depth[:, top:bottom, left:right] = space.depth.reshape(slabs).mean(1)
    within = depth[:, top:bottom, left:right] > -TABLE_MM
    for nth, mask in enumerate(masks):
        shares[nth, :, top:bottom, left:right] = mask.reshape(slabs).mean(1, dtype=np.float32) * within


def _space(plan: SeriesPlan, atlas: Atlas, view: View) -> Space:
    pushes = [lesion.push for lesion in plan.lesions if lesion.push is not None]
    return sample_space(atlas, plan.head.shape, view, plan.head.seed, pushes)


def _window(
    plan: SeriesPlan, atlas: Atlas, planes: tuple[float, ...], side: int, pitch_mm: float
) -> tuple[int, int, int, int] | None:
    """First and last row and column of the head in these planes; None: nothing but air."""
    few = side // LOOKED_EVERY
    view = View((few, few), pitch_mm * side / few, planes[:: max(1, len(planes) // 4)], plan.gantry_deg)
    coarse = paint_head(replace(plan.head, couch=None), _space(plan, atlas, view)) > AIR_HU + 30
    rows, columns = np.flatnonzero(coarse.any((0, 2))), np.flatnonzero(coarse.any((0, 1)))
    if not len(rows):
        return None
    each, slack = side / few, 1.5
    ends = [(int((at[0] - slack) * each), int((at[-1] + 1 + slack) * each)) for at in (rows, columns)]
    (top, bottom), (left, right) = ((max(0, low), min(side, high)) for low, high in ends)
    return top, bottom, left, right


def _couch(plan: SeriesPlan, clean: Field, pitch_mm: float) -> None:
    if plan.head.couch is not None:
        at = ((np.arange(clean.shape[1]) - (clean.shape[1] - 1) / 2) * pitch_mm).astype(np.float32)
        rows, columns = np.meshgrid(at, at, indexing="ij")
        paint_couch(plan.head.couch, rows[None], columns[None], clean)


def _enlarged(planes: Field, side: int) -> Field:
    """(n, H, W) to (n, side, side), linear."""
    if planes.shape[-1] == side:
        return planes.copy()
    wide = torch.nn.functional.interpolate(torch.from_numpy(planes)[None], (side, side), mode="bilinear")
    return np.asarray(wide[0].numpy())


def _study(plan: SeriesPlan, hu: NDArray[np.int16], each: NDArray[np.bool_]) -> Study:
    by_kind = np.zeros((len(hu), len(KINDS), *hu.shape[1:]), bool)
    for lesion, mask in zip(plan.lesions, each, strict=True):
        by_kind[:, CHANNEL_OF[lesion.kind]] |= mask
    labels = labels_of(by_kind, plan.pitch_mm)
    weights = (1 << np.arange(len(KINDS), dtype=np.uint8)).reshape(1, -1, 1, 1)
    name = f"phantom-{plan.seed}"
    return Study(
        uid=name,
        patient=name,
        hu=hu,
        spacing_mm=(plan.spacing_mm, plan.pitch_mm, plan.pitch_mm),
        z_mm=np.asarray(plan.z_mm, np.float32),
        truth=_truth(labels, (by_kind * weights).sum(1).astype(np.uint8)),
        facts=plan.facts,
        source="phantom",
    )


def _truth(labels: NDArray[np.float32], masks: NDArray[np.uint8]) -> Truth:
    seen = [_seen(labels[:, nth]) for nth in range(labels.shape[1])]
    by_label = {kind.value: here for kind, here in zip(KINDS, seen[1:], strict=True) if here is not None}
    return Truth(seen[0], by_label, labels, masks)


def _seen(told: NDArray[np.float32]) -> bool | None:
    """Of one label's slices: a lesion that the slices only graze is neither there nor absent."""
    return None if told.max() == GRAZED else bool(told.max() == 1)
