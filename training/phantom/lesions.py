"""The lesions: where they lie, what they look like, and their true masks.

Channels of every mask, in this order: intraparenchymal, subdural_epidural, subarachnoid, intraventricular, mass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.phantom.anatomy import csf_fraction, tentorium_height
from training.phantom.paint import ball, blend, filled
from training.phantom.plan import HeadPlan, Point
from training.phantom.space import Field, Push, Space

CHANNELS = ("intraparenchymal", "subdural_epidural", "subarachnoid", "intraventricular", "mass")
KINDS = ("intraparenchymal", "subdural", "chronic_subdural", "epidural", "subarachnoid", "intraventricular", "mass")
# Kept out of training altogether: a held-out family that only evaluation draws.
HELD_OUT_KINDS = ("contusions", "falcine_subdural", "convexity_subarachnoid", "calcified_mass")
CHANNEL_OF = {
    "intraparenchymal": 0,
    "contusions": 0,
    "subdural": 1,
    "chronic_subdural": 1,
    "epidural": 1,
    "falcine_subdural": 1,
    "subarachnoid": 2,
    "convexity_subarachnoid": 2,
    "intraventricular": 3,
    "mass": 4,
    "calcified_mass": 4,
}
DEEP_SITES: tuple[Point, ...] = ((22, -2, 4), (26, 8, 2), (12, -18, 8), (0, -28, -32), (20, -62, -36), (28, -56, -38))
SHIFT_REACH_MM = 48.0  # to the midline
SETTLED_FROM = 0.6
CHRONIC_HU = (6.0, 42.0)  # weeks old, to isodense
SULCI_FILLED = 1.8  # blood spreads a narrow sulcus: more of it is seen than of the clear fluid before
TRUE_FROM = 0.5  # a sample belongs to a lesion from this share on


@dataclass(frozen=True)
class Lesion:
    """One lesion. Lengths in mm, densities in HU; `difficulty` 0 (plain) … 1 (faint, small, thin)."""

    kind: str
    centre_mm: Point
    radius_mm: Point
    hu: float
    rim_hu: float  # taken from the brain around it: oedema
    rim_mm: float
    rough: float  # 0 smooth … 1 ragged
    side: int
    level: float  # intraventricular: filled from behind up to this share; subdural: mixed density
    seed: int

    @property
    def push(self) -> Push | None:
        """Mass effect of what takes up room."""
        if CHANNEL_OF[self.kind] == 1 and self.kind != "falcine_subdural":
            # What lies under the inner table pushes the midline by about half of its thickness.
            return Push(self.centre_mm, SHIFT_REACH_MM, 0.8 * self.radius_mm[0] / SHIFT_REACH_MM)
        if CHANNEL_OF[self.kind] not in (0, 4):
            return None
        return Push(self.centre_mm, 1.6 * max(self.radius_mm), 0.22)


def plan_lesions(seed: int, difficulty: tuple[float, float], kinds: tuple[str, ...] = KINDS) -> tuple[Lesion, ...]:
    """Draw the lesions of one head: one as a rule, sometimes two, or an intraparenchymal bleed that broke through."""
    rng = np.random.default_rng([seed, 4])
    first = _draw(rng, str(rng.choice(kinds)), difficulty)
    chosen = [first]
    if first.kind == "intraparenchymal" and rng.random() < 0.25:
        chosen.append(_draw(rng, "intraventricular", difficulty))
    elif rng.random() < 0.2:
        chosen.append(_draw(rng, str(rng.choice(kinds)), difficulty))
    return tuple(chosen)


def _draw(rng: Generator, kind: str, difficulty: tuple[float, float]) -> Lesion:
    hard = rng.uniform(*difficulty)
    side = int(rng.choice([-1, 1]))
    radius = _radius(rng, kind, hard)
    hu = rng.uniform(62, 84) - 16 * hard + rng.normal(0, 2)
    if CHANNEL_OF[kind] == 4:
        hu = rng.uniform(34, 58)
    if kind == "chronic_subdural":
        hu = rng.uniform(*CHRONIC_HU)
    return Lesion(
        kind=kind,
        centre_mm=_centre(rng, kind, side, hard),
        radius_mm=radius,
        hu=float(np.clip(hu, CHRONIC_HU[0], 88)),
        rim_hu=rng.uniform(6, 16),
        rim_mm=rng.uniform(2, 9) if CHANNEL_OF[kind] == 0 else rng.uniform(8, 24),
        rough=rng.uniform(0.1, 0.8),
        side=side,
        level=rng.uniform(0.15, 0.9) * (1 - 0.6 * hard),
        seed=int(rng.integers(1 << 30)),
    )


def _radius(rng: Generator, kind: str, hard: float) -> Point:
    """Semi-axes; for extra-axial blood (thickness, reach along the skull, reach in z)."""
    if kind in ("subdural", "falcine_subdural", "chronic_subdural"):
        return (rng.uniform(6, 16) - 3.0 * hard, rng.uniform(30, 75), rng.uniform(22, 60))
    if kind == "epidural":
        return (rng.uniform(12, 30) - 8 * hard, rng.uniform(26, 44) - 6 * hard, 0.0)
    size = {"subarachnoid": (22, 48), "convexity_subarachnoid": (12, 24), "contusions": (4, 9)}.get(kind, (9, 27))
    mean = rng.uniform(*size) * (1 - 0.5 * hard)
    a, b, c = (mean * rng.uniform(0.75, 1.3) for _ in range(3))
    return (a, b, c)


def _centre(rng: Generator, kind: str, side: int, hard: float) -> Point:
    if kind == "subarachnoid" and rng.random() < 0.55:  # basal cisterns and Sylvian fissures
        return (side * rng.uniform(0, 30), rng.uniform(-15, 15), rng.uniform(-22, -4))
    if CHANNEL_OF[kind] in (1, 2) or kind == "contusions":
        angle = rng.uniform(-2.4, 1.2) if kind != "contusions" else rng.uniform(0.2, 1.2)
        z = rng.uniform(-5, 55) if kind != "contusions" else rng.uniform(-20, 10)
        lift = np.sqrt(max(0.2, 1 - (z / 85) ** 2))
        return (side * 66 * lift * abs(np.cos(angle)), -17 + 86 * lift * np.sin(angle), z)
    if kind == "intraparenchymal" and rng.random() < 0.5:
        x, y, z = DEEP_SITES[rng.integers(len(DEEP_SITES))]
        return (side * x + rng.normal(0, 3), y + rng.normal(0, 4), z + rng.normal(0, 3))
    edge = 0.80 if hard > 0.6 else 0.66  # small hard ones may lie in the cortex
    z = rng.uniform(-25, 58)
    lift = edge * np.sqrt(1 - ((z - 2) / 84) ** 2)
    angle = rng.uniform(-np.pi / 2, np.pi / 2)
    return (side * (8 + 56 * lift * np.cos(angle)), -17 + 82 * lift * np.sin(angle), z)


def paint_lesions(plan: HeadPlan, lesions: tuple[Lesion, ...], space: Space, picture: Field) -> Field:
    """Blend the lesions into `picture` (in place) and return their masks, shape (5, …) of 0 or 1."""
    masks = np.zeros((len(CHANNELS), *picture.shape), np.float32)
    for lesion, mask in zip(lesions, paint_each(plan, lesions, space, picture), strict=True):
        np.maximum(masks[CHANNEL_OF[lesion.kind]], mask, out=masks[CHANNEL_OF[lesion.kind]])
    return masks


def paint_each(plan: HeadPlan, lesions: tuple[Lesion, ...], space: Space, picture: Field) -> list[NDArray[np.bool_]]:
    """As `paint_lesions`; one mask a lesion, in their order."""
    drawn = []
    for lesion in lesions:
        fraction = PAINTERS[lesion.kind](plan, lesion, space, picture)
        drawn.append((fraction > TRUE_FROM) & (space.depth > 0))
    return drawn


def _within(space: Space) -> Field:
    return filled(-space.depth)


def _wobble(lesion: Lesion, space: Space) -> Field:
    size = min(r for r in lesion.radius_mm if r > 0)
    return np.asarray(lesion.rough * (0.22 * size * space.coarse[1] + 0.12 * size * space.fine[2]), np.float32)


def _clot(lesion: Lesion, space: Space) -> Field:
    """Density of clot: mottled, in ragged bleeds more so."""
    return np.asarray(lesion.hu + 3.0 * lesion.rough * space.fine[0], np.float32)


def _paint_bleed(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    distance = ball(space, lesion.centre_mm, lesion.radius_mm) + _wobble(lesion, space)
    within = _within(space)
    tissue = within * (picture < 120)
    rim = np.clip(1 - np.abs(distance) / lesion.rim_mm, 0, 1) * (distance > -1) * tissue
    picture -= rim * lesion.rim_hu * (picture > 20)
    fraction = filled(distance, 2.4) * within
    blend(picture, fraction, np.maximum(_clot(lesion, space), np.minimum(picture, 120)))
    return fraction


def _paint_contusions(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """Several small cortical bleeds in a swollen area."""
    rng = np.random.default_rng(lesion.seed)
    total = np.zeros_like(picture)
    for _ in range(int(rng.integers(3, 7))):
        x, y, z = (c + rng.normal(0, 8) for c in lesion.centre_mm)
        part = filled(ball(space, (x * 0.85, y * 0.85, z), lesion.radius_mm) + _wobble(lesion, space), 2.4)
        total = np.maximum(total, part * _within(space))
    swollen = filled(ball(space, lesion.centre_mm, (22, 22, 22)) + 3 * space.coarse[0], 6) * _within(space)
    picture -= swollen * 0.6 * lesion.rim_hu * ((picture > 20) & (picture < 90))
    blend(picture, total, np.maximum(_clot(lesion, space), np.minimum(picture, 120)))
    return total


def _paint_subdural(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """A crescent along the inner table of one hemisphere, not crossing the falx or the tentorium."""
    thick, along, high = lesion.radius_mm
    cx, cy, cz = lesion.centre_mm
    away = np.hypot(np.hypot(space.x - cx, space.y - cy) / along, (space.z - cz) / high)
    thickness = thick * np.clip(1.15 - away**2, 0, 1) * (1 + 0.2 * lesion.rough * space.coarse[1]) - 0.6
    return _paint_layer(lesion, space, picture, space.depth - thickness)


def _paint_falcine(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """Blood along the falx of one side."""
    thick, along, high = lesion.radius_mm
    away = np.hypot((space.y - lesion.centre_mm[1]) / along, (space.z - 40) / high)
    thickness = 0.6 * thick * np.clip(1.15 - away**2, 0, 1)
    arch = np.hypot((space.y + 20) / 55, (space.z - 6) / 38)
    distance = np.maximum(space.x * lesion.side - thickness, (1 - arch) * 30)
    return _paint_layer(lesion, space, picture, distance)


def _paint_layer(lesion: Lesion, space: Space, picture: Field, distance: Field) -> Field:
    other_side = -space.x * lesion.side + 0.8
    below = tentorium_height(space) - space.z
    below = np.where(space.y < -28, below, -9.0)
    distance = np.maximum(np.maximum(distance, other_side), below)
    fraction = filled(np.asarray(distance, np.float32), 1.6) * _within(space)
    behind = np.clip((lesion.centre_mm[1] - space.y) / 40 + 0.5, 0, 1)
    mixed = lesion.hu - (14 * lesion.rough) * (1 - behind) * (lesion.level > 0.5)
    if lesion.kind == "chronic_subdural" and lesion.level > SETTLED_FROM:  # cells settle behind, serum in front
        mixed = mixed + 22 * filled(np.asarray(space.y - lesion.centre_mm[1], np.float32), 6.0)
    blend(picture, fraction, np.asarray(mixed + 2 * lesion.rough * space.fine[0], np.float32))
    return fraction


def _paint_epidural(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """A lens: the part of a ball, centred near the skull, that lies inside it."""
    depth_mm, half, _ = lesion.radius_mm
    ball_mm = (half**2 + depth_mm**2) / (2 * depth_mm)
    outside = 1 + (ball_mm - depth_mm) / 80
    cx, cy, cz = (c * outside for c in lesion.centre_mm)
    distance = ball(space, (cx, cy, cz), (ball_mm, ball_mm, ball_mm)) + 0.4 * _wobble(lesion, space)
    fraction = filled(distance, 1.6) * _within(space)
    blend(picture, fraction, _clot(lesion, space))
    return fraction


def _paint_subarachnoid(plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """Sulci, fissures and cisterns around the centre turn from dark to bright."""
    region = filled(ball(space, lesion.centre_mm, lesion.radius_mm) + _wobble(lesion, space), 10.0)
    ventricle = filled(space.ventricle - plan.shape.ventricle_growth_mm)
    csf = csf_fraction(plan, space) * (1 - ventricle) * _within(space)
    csf = np.asarray(np.clip(SULCI_FILLED * csf - 0.1, 0, 1) * ((picture < 120) & (space.depth > 0.8)), np.float32)
    blood = lesion.hu - plan.tissue.csf_hu * 0.3
    picture += region * csf * np.maximum(blood - plan.tissue.csf_hu, 0)
    return np.asarray(np.minimum(region * 1.2, 1) * csf, np.float32) * 1.2


def _paint_ventricular(plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """Blood layering in the back of the ventricles, or casting one side."""
    ventricle = filled(space.ventricle - plan.shape.ventricle_growth_mm)
    if lesion.rough > 0.5:  # a cast of one lateral ventricle
        part = filled(-space.x * lesion.side - 2 + 3 * space.coarse[0], 2) * filled(
            np.asarray(space.y - 60 * (lesion.level - 0.4), np.float32), 4
        )
    else:
        part = filled(np.asarray(space.y - (-50 + 55 * lesion.level), np.float32), 1.5)
    fraction = ventricle * part * _within(space)
    blend(picture, fraction, np.maximum(_clot(lesion, space), np.minimum(picture, 400)))
    return fraction


def _paint_mass(_plan: HeadPlan, lesion: Lesion, space: Space, picture: Field) -> Field:
    """A tumour: solid or ringed, iso- to slightly hyperdense, with oedema that spreads in the white matter."""
    distance = ball(space, lesion.centre_mm, lesion.radius_mm) + _wobble(lesion, space)
    within = _within(space)
    spread = filled(np.asarray(distance - lesion.rim_mm * (1 + 0.4 * space.coarse[2]), np.float32), 5.0)
    oedema = spread * (0.25 + 0.75 * np.clip(space.white * 1.4, 0, 1)) * within * (picture < 100)
    picture -= oedema * lesion.rim_hu * (picture > 12)
    core = filled(distance, 2.4) * within
    hu = lesion.hu + 2.5 * space.fine[1]
    if lesion.level > 0.35:  # necrotic centre
        hu = hu - (lesion.hu - 18) * filled(distance + 0.4 * min(lesion.radius_mm), 3.0)
    if lesion.kind == "calcified_mass":
        hu = hu + 120 * np.clip(space.fine[2] - 1.1, 0, 1)
    blend(picture, core, np.asarray(hu, np.float32))
    return core


PAINTERS: dict[str, Callable[[HeadPlan, Lesion, Space, Field], Field]] = {
    "intraparenchymal": _paint_bleed,
    "contusions": _paint_contusions,
    "subdural": _paint_subdural,
    "chronic_subdural": _paint_subdural,
    "falcine_subdural": _paint_falcine,
    "epidural": _paint_epidural,
    "subarachnoid": _paint_subarachnoid,
    "convexity_subarachnoid": _paint_subarachnoid,
    "intraventricular": _paint_ventricular,
    "mass": _paint_mass,
    "calcified_mass": _paint_mass,
}
