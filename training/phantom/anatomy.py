"""Brain, its coverings, bone, scalp and what lies below: HU at every sample of a Space.

Painted from the outside in; each step takes the picture so far and blends its tissue in by the fraction of the sample
that it fills, so that edges carry the partial volume a scanner would see.
"""

from __future__ import annotations

import numpy as np

from training.phantom.plan import HeadPlan, Point, Spot
from training.phantom.space import Field, Space

AIR_HU = -1000.0
EDGE_MM = 1.2  # width over which a border is blended, about one sample
# Thickened bone (centre RAS mm, reach mm, added thickness mm): petrous pyramids, sphenoid wings, clivus, frontal and
# occipital squama.
THICK_BONE: tuple[tuple[Point, float, float], ...] = (
    ((38, -24, -42), 13, 12),
    ((-38, -24, -42), 13, 12),
    ((36, 22, -32), 12, 7),
    ((-36, 22, -32), 12, 7),
    ((0, -4, -46), 12, 9),
    ((0, 66, 0), 16, 5),
    ((0, -104, -14), 14, 6),
)
# Air (centre, radii): frontal, sphenoid, ethmoid, maxillary sinuses, nasal cavity, mastoids.
SINUSES: tuple[tuple[Point, Point], ...] = (
    ((0, 78, -8), (16, 5, 11)),
    ((0, 20, -44), (11, 11, 8)),
    ((0, 48, -42), (11, 19, 13)),
    ((27, 50, -64), (13, 15, 15)),
    ((-27, 50, -64), (13, 15, 15)),
    ((0, 50, -68), (12, 26, 14)),
    ((56, -40, -46), (9, 13, 13)),
    ((-56, -40, -46), (9, 13, 13)),
)


def blend(picture: Field, fraction: Field, hu: Field | float) -> None:
    """Mix `hu` into `picture` (in place) by `fraction` 0…1."""
    picture += fraction * (hu - picture)


def filled(distance_mm: Field, edge_mm: float = EDGE_MM) -> Field:
    """Fraction 0…1 of the sample inside a surface, from its signed distance (negative inside)."""
    return np.clip(0.5 - distance_mm / edge_mm, 0, 1)


def ball(space: Space, centre: Point, radius: Point) -> Field:
    """Signed distance, in mm and roughly, to an ellipsoid."""
    square = (
        ((space.x - centre[0]) / radius[0]) ** 2
        + ((space.y - centre[1]) / radius[1]) ** 2
        + ((space.z - centre[2]) / radius[2]) ** 2
    )
    return np.asarray((np.sqrt(square) - 1) * min(radius), np.float32)


def paint_head(plan: HeadPlan, space: Space) -> Field:
    """HU of the bleed-free head, shape of the space's fields."""
    picture = np.full_like(space.depth, AIR_HU)
    skull_mm = _skull_thickness(plan, space)
    _paint_soft_parts(plan, space, skull_mm, picture)
    _paint_base(plan, space, picture)
    _paint_skull(plan, space, skull_mm, picture)
    _paint_cavities(space, picture)
    inside = filled(-space.depth + 0.6 * space.fine[0] * (space.depth < 4), plan.shape.table_edge_mm)
    blend(picture, inside, _brain_hu(plan, space) + _bright_rim(plan, space))
    _paint_coverings(plan, space, inside, picture)
    _paint_spots(plan.spots, space, inside, picture)
    _paint_holder(plan, space, picture)
    return picture


def csf_fraction(plan: HeadPlan, space: Space) -> Field:
    """Share of CSF 0…1 in every sample: fissures, sulci, cisterns, ventricles."""
    tissue = space.grey + space.white
    near_surface = np.exp(-np.maximum(space.depth, 0) / 18).astype(np.float32)
    shift = plan.shape.sulcus_shift * near_surface + 0.13 * space.fine[1] * near_surface
    tissue = np.clip((tissue - 0.5 - shift) * 1.6 + 0.5, 0, 1)
    reaching = np.clip((6.5 - space.depth) / 3, 0, 1) * np.clip(0.8 + 0.5 * space.coarse[0], 0, 1)
    tissue = np.maximum(tissue, plan.shape.filled_rim * reaching)
    ventricle = filled(space.ventricle - plan.shape.ventricle_growth_mm)
    return np.maximum(1 - tissue, ventricle)


def _bright_rim(plan: HeadPlan, space: Space) -> Field:
    """Partial volume of a sloping vault, and dura: the commonest thing taken for a thin subdural."""
    near = np.exp(-np.maximum(space.depth, 0) / plan.shape.rim_mm)
    return np.asarray(plan.shape.rim_hu * near * np.clip(0.6 + 0.7 * space.coarse[1], 0, 1.6), np.float32)


def _brain_hu(plan: HeadPlan, space: Space) -> Field:
    t = plan.tissue
    white = space.white / np.maximum(space.grey + space.white, 0.05)
    hu = t.grey_hu + np.clip(white, 0, 1) * (t.white_hu - t.grey_hu) + 0.7 * space.coarse[0]
    if plan.leukoaraiosis:
        hu = hu - plan.leukoaraiosis * white * np.exp(-np.maximum(space.ventricle, 0) / 9)
    csf = csf_fraction(plan, space)
    for low in plan.lows:
        distance = ball(space, low.centre_mm, low.radius_mm) + 2.0 * space.coarse[1] + 1.0 * space.fine[2]
        csf = np.maximum(csf, low.hu * filled(distance, 3.0))
    return np.asarray(hu + csf * (t.csf_hu - hu), np.float32)


def _skull_thickness(plan: HeadPlan, space: Space) -> Field:
    thickness = plan.shape.skull_mm * (1 + 0.16 * space.coarse[2])
    for centre, reach, added in THICK_BONE:
        square = (space.x - centre[0]) ** 2 + (space.y - centre[1]) ** 2 + (space.z - centre[2]) ** 2
        thickness = thickness + added * np.exp(-square / (2 * reach**2))
    thinned = 0.55 * np.exp(-(((np.abs(space.x) - 62) / 18) ** 2) - ((space.z + 8) / 22) ** 2)  # temporal squama
    return np.asarray(np.maximum(thickness * (1 - thinned), 1.8), np.float32)


def _envelope(plan: HeadPlan, space: Space, skull_mm: Field) -> Field:
    """Signed distance to the skin: the vault's shells, and below the brain a tapering cylinder of face and neck."""
    vault = -space.depth - skull_mm - plan.shape.scalp_mm * (1 + 0.25 * space.coarse[0])
    taper = np.clip((space.z + 40) / 60, -1, 0)
    neck = np.hypot(space.x / (73 + 18 * taper), (space.y + 10) / (98 + 12 * taper)) - 1
    below = np.maximum(75 * neck + 1.5 * space.coarse[1], space.z + 12)
    return np.minimum(vault, below)


def _paint_soft_parts(plan: HeadPlan, space: Space, skull_mm: Field, picture: Field) -> None:
    t = plan.tissue
    skin = _envelope(plan, space, skull_mm)
    low = np.clip((-space.z - 10) / 30, 0, 1)  # muscle grows from temple to neck
    temple = np.exp(-(((np.abs(space.x) - 72) / 9) ** 2) - ((space.y - 18) / 26) ** 2 - ((space.z + 15) / 28) ** 2)
    muscle = np.clip(1.25 * low + 1.6 * temple - 0.35 + 0.5 * space.fine[0] + 0.25 * space.coarse[1], 0, 1)
    flesh = t.fat_hu + muscle * (t.muscle_hu - t.fat_hu)
    blend(flesh, np.clip(1.0 - np.abs(skin + 1.5) / 1.8, 0, 1), 20.0)
    blend(picture, filled(skin), flesh)


def _paint_base(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Crude face and neck: bone struts, mandible, vertebra with canal."""
    t = plan.tissue
    if space.z.min() > 0:
        return
    inside = picture > -300
    struts = filled(0.9 - space.fine[1] - 0.5 * space.coarse[0], 0.5) * np.clip((-space.z - 28) / 12, 0, 1) * inside
    struts *= (space.y > -45) & (np.abs(space.x) < 60)
    blend(picture, struts, t.diploe_hu + 250)
    for side in (-1, 1):
        blend(picture, filled(ball(space, (side * 48, 6, -84), (5, 14, 30))) * inside, t.table_hu)
    radius = np.hypot(space.x, space.y + 44)
    low = np.clip((-space.z - 72) / 6, 0, 1)
    blend(picture, low * filled(np.abs(radius - 17) - 5 - 3 * space.coarse[2]), t.diploe_hu + 300)
    blend(picture, low * filled(np.asarray(radius - 12, np.float32)), t.csf_hu)
    blend(picture, low * filled(np.asarray(radius - 6, np.float32)), t.white_hu)


def _paint_skull(plan: HeadPlan, space: Space, skull_mm: Field, picture: Field) -> None:
    t = plan.tissue
    out = -space.depth  # mm outside the inner table
    share = out / skull_mm
    spongy = np.clip(1.6 - np.abs(share - 0.5) * 5, 0, 1) * np.clip((skull_mm - 3) / 3, 0, 1)
    bone = t.table_hu + spongy * (t.diploe_hu + 180 * space.fine[2] - t.table_hu)
    shell = filled(out - skull_mm)
    if plan.craniotomy is not None:
        shell = shell * (1 - filled(ball(space, plan.craniotomy.centre_mm, plan.craniotomy.radius_mm)))
    blend(picture, shell, np.maximum(bone, 150))


def _paint_cavities(space: Space, picture: Field) -> None:
    """Orbits with globes, and air in the sinuses behind irregular septa."""
    if space.z.min() > 12:
        return
    for side in (-1, 1):
        wall = ball(space, (side * 31, 58, -38), (17, 26, 16))
        blend(picture, filled(np.abs(wall) - 0.9), 700.0)
        blend(picture, filled(wall), -85.0)
        muscle = ball(space, (side * 29, 48, -38), (9, 20, 8))
        blend(picture, filled(np.abs(muscle) - 1.2) * filled(wall), 45.0)
        globe = ball(space, (side * 32, 72, -38), (12, 12, 12))
        blend(picture, filled(globe), 10.0)
        blend(picture, filled(np.abs(globe) - 0.7), 45.0)
    head = (picture > -300).astype(np.float32)
    for centre, radius in SINUSES:
        cell = ball(space, centre, radius) + 1.5 * space.coarse[0]
        septa = filled(0.35 - np.abs(space.fine[0]), 0.3)
        blend(picture, filled(cell) * (1 - 0.8 * septa) * head, AIR_HU)


def tentorium_height(space: Space) -> Field:
    """Z in mm of the tentorium above (x, y): a tent whose ridge falls backwards."""
    return -1 - 0.42 * np.abs(space.x) + 0.38 * (space.y + 45)


def _paint_coverings(plan: HeadPlan, space: Space, inside: Field, picture: Field) -> None:
    """Falx, tentorium and dural sinuses: bright sheets and tubes that every reader knows and a network must learn."""
    t, s = plan.tissue, plan.shape
    above = space.z - tentorium_height(space)
    arch = np.hypot((space.y + 20) / 55, (space.z - 6) / 38)  # the free edge of the falx
    midline = np.abs(space.x) - s.falx_mm / 2
    falx = filled(midline) * np.clip((arch - 1) * 12, 0, 1) * (above > 0) * inside
    plaques = plan.falx_calcium * np.clip(space.coarse[2] - 0.4, 0, 1) * 350
    blend(picture, falx, np.maximum(picture, t.sinus_hu + 4 + plaques))
    sheet = (space.y < -28) & (np.hypot(space.x, space.y + 20) > 24)
    blend(picture, filled(np.abs(above) - s.tentorium_mm / 2) * sheet * inside, np.maximum(picture, t.sinus_hu))
    for tube in _sinus_tubes(space, above):
        blend(picture, filled(tube, 2.0) * inside, np.maximum(picture, t.sinus_hu))


def _sinus_tubes(space: Space, above: Field) -> tuple[Field, ...]:
    """Signed distances: superior sagittal, straight, transverse and sigmoid sinus, torcula."""
    rim = space.depth - 5.5 - 1.2 * space.coarse[1]
    sagittal = np.maximum(np.maximum(np.abs(space.x) + 0.6 * space.depth - 4.5, rim), -above)
    straight = np.maximum(np.hypot(space.x, above) - 2.4, space.y + 42)
    transverse = np.maximum(np.maximum(np.abs(above) - 4.0, rim), space.y + 48)
    sigmoid = np.maximum(
        np.hypot(np.abs(space.x) - 52 - 1.5 * space.coarse[0], space.y + 46) - 5.5, np.abs(space.z + 36) - 14
    )
    torcula = ball(space, (0, -99, -19), (6, 6, 6))
    return sagittal, straight, transverse, sigmoid, torcula


def _paint_spots(spots: tuple[Spot, ...], space: Space, inside: Field, picture: Field) -> None:
    for spot in spots:
        near = filled(ball(space, spot.centre_mm, spot.radius_mm) + 0.4 * space.fine[1])
        blend(picture, near * inside, np.maximum(picture, spot.hu))


def _paint_holder(plan: HeadPlan, space: Space, picture: Field) -> None:
    """The head holder: a thin curved shell behind and beside the head, air between."""
    if not plan.holder:
        return
    radius = np.hypot(space.columns_mm / 1.0, (space.rows_mm + 5) / 1.22)
    shell = filled(np.abs(radius - 99) - 0.9) * (space.rows_mm > 15) * (picture < -300)
    blend(picture, shell, 120.0)
