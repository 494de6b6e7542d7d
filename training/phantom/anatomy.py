"""Brain, its coverings, bone, scalp and what lies below: HU at every sample of a Space.

Painted from the outside in; each step takes the picture so far and blends its tissue in by the fraction of the sample
that it fills, so that edges carry the partial volume a scanner would see.
"""

from __future__ import annotations

import numpy as np

from training.phantom.couch import paint_couch
from training.phantom.face import paint_below, paint_cavities
from training.phantom.paint import EDGE_MM, TEXTURE_PEAK, ball, blend, box_of, filled
from training.phantom.plan import HeadPlan, Point, Spot
from training.phantom.space import Field, Space

AIR_HU = -1000.0
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


def paint_head(plan: HeadPlan, space: Space) -> Field:
    """HU of the bleed-free head, shape of the space's fields."""
    picture = np.full_like(space.depth, AIR_HU)
    skull_mm = _skull_thickness(plan, space)
    _paint_soft_parts(plan, space, skull_mm, picture)
    paint_below(plan, space, picture)
    _paint_skull(plan, space, skull_mm, picture)
    paint_cavities(plan, space, picture)
    inside = filled(-space.depth + 0.6 * space.fine[0] * (space.depth < 4), plan.shape.table_edge_mm)
    blend(picture, inside, _brain_hu(plan, space) + _bright_rim(plan, space))
    _paint_coverings(plan, space, inside, picture)
    _paint_spots(plan.spots, space, inside, picture)
    _paint_surgery(plan, space, picture)
    if plan.couch is not None:
        paint_couch(plan.couch, space.rows_mm, space.columns_mm, picture)
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
        box = box_of(space, low, 3.0 * TEXTURE_PEAK)
        if box is not None:
            part = space.part(box)
            distance = ball(part, low.centre_mm, low.radius_mm) + 2.0 * part.coarse[1] + 1.0 * part.fine[2]
            csf[box] = np.maximum(csf[box], low.hu * filled(distance, 3.0))
    return np.asarray(hu + csf * (t.csf_hu - hu), np.float32)


def _skull_thickness(plan: HeadPlan, space: Space) -> Field:
    thickness = plan.shape.skull_mm * (1 + 0.16 * space.coarse[2])
    for centre, reach, added in THICK_BONE:
        box = space.around(centre, (3.2 * reach, 3.2 * reach, 3.2 * reach))
        if box is not None:
            part = space.part(box)
            square = (part.x - centre[0]) ** 2 + (part.y - centre[1]) ** 2 + (part.z - centre[2]) ** 2
            thickness[box] += added * np.exp(-square / (2 * reach**2))
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
    muscle = np.clip(0.95 * low + 1.6 * temple - 0.35 + 0.22 * space.fine[0] + 0.3 * space.coarse[1], 0, 1)
    flesh = t.fat_hu + muscle * (t.muscle_hu - t.fat_hu)
    blend(flesh, np.clip(1.0 - np.abs(skin + 1.5) / 1.8, 0, 1), 20.0)
    blend(picture, filled(skin), flesh)


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
    sloping = filled(np.abs(above) - s.tentorium_mm / 2, _between_planes(space))
    blend(picture, sloping * sheet * inside, np.maximum(picture, t.sinus_hu))
    for tube in _sinus_tubes(space, above):
        blend(picture, filled(tube, 2.0) * inside, np.maximum(picture, t.sinus_hu))


def _between_planes(space: Space) -> float:
    """Width of a sloping sheet's border: planes of one slab must not show as parallel lines."""
    if len(space.z) == 1:
        return EDGE_MM
    middle = space.z[:2, space.z.shape[1] // 2, space.z.shape[2] // 2]
    return float(np.clip(abs(middle[1] - middle[0]) * 1.3, EDGE_MM, 4.0))


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
        box = box_of(space, spot, 0.4 * TEXTURE_PEAK)
        if box is not None:
            part, seen = space.part(box), picture[box]
            near = filled(ball(part, spot.centre_mm, spot.radius_mm) + 0.4 * part.fine[1])
            blend(seen, near * inside[box], np.maximum(seen, spot.hu))


def _paint_surgery(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Shunt, clips, coils, fillings: smooth, and far denser than any blood."""
    for spot in plan.metal:
        box = box_of(space, spot)
        if box is not None:
            seen = picture[box]
            blend(seen, filled(ball(space.part(box), spot.centre_mm, spot.radius_mm)) * (seen > -300), spot.hu)
    if plan.shunt is not None:
        _paint_shunt(plan.shunt, space, picture)


def _paint_shunt(tip: Spot, space: Space, picture: Field) -> None:
    """A catheter from a burr hole high up to the ventricle: a thin bright wall around fluid."""
    x, y, z = tip.centre_mm
    rise = np.clip((space.z - z) / 55, 0, 1.6)
    axis_x, axis_y = x + np.sign(x) * 26 * rise, y + 8 * rise
    radius = np.hypot(space.x - axis_x, space.y - axis_y)
    tube = filled(np.abs(radius - 1.3) - 0.5) * (space.z > z) * (picture > -300)
    blend(picture, np.asarray(tube, np.float32), tip.hu)
