"""What lies below the brain: facial bones, teeth, jaw, air cells, orbits, muscles, the first vertebrae.

Coarse beside the brain, but each structure where a reader expects it: a network that has seen only blobs there takes
the real ones for blood.
"""

from __future__ import annotations

import numpy as np

from training.phantom.paint import ball, blend, both_sides, box_of, filled
from training.phantom.plan import HeadPlan, Spot
from training.phantom.space import Field, Space

AIR_HU = -1000.0
# Right-hand ones have a mirror image. hu: 0 spongy … 1 dense bone.
PAIRED_BONES = (
    Spot((44, 60, -54), (10, 8, 9), 0.5),  # zygoma
    Spot((63, 26, -52), (3, 27, 4), 0.9),  # zygomatic arch
    Spot((50, 4, -84), (4, 15, 27), 0.9),  # mandibular ramus
    Spot((50, -9, -56), (9, 5, 6), 0.5),  # condyle
    Spot((14, 24, -66), (2.2, 9, 14), 0.7),  # pterygoid plates
    Spot((22, -48, -66), (7, 11, 7), 0.4),  # occipital condyle, lateral mass of the atlas
    Spot((40, -22, -70), (2.5, 3, 14), 0.9),  # styloid
)
PALATE = Spot((0, 48, -74), (21, 24, 3), 0.7)
DENS = Spot((0, -30, -80), (6, 6, 15), 0.6)
# hu as drawn; the muscles' is replaced by the head's own.
PAIRED_SOFT = (
    Spot((57, 16, -80), (6, 16, 24), 1.0),  # masseter
    Spot((33, 14, -64), (10, 13, 12), 1.0),  # lateral pterygoid
    Spot((40, 6, -86), (6, 11, 14), 1.0),  # medial pterygoid
    Spot((50, -52, -92), (9, 14, 30), 1.0),  # sternocleidomastoid
    Spot((18, -82, -82), (17, 20, 26), 1.0),  # neck
    Spot((58, -8, -80), (8, 11, 17), 0.45),  # parotid: fat in it
)
TONGUE = Spot((0, 45, -94), (22, 27, 14), 1.0)
PHARYNX = Spot((0, 12, -88), (11, 5, 26), AIR_HU)
# Air cells behind ragged septa, each with a thin wall of bone.
CELLS = (
    Spot((0, 78, -8), (16, 5, 11), AIR_HU),  # frontal
    Spot((0, 20, -44), (11, 11, 8), AIR_HU),  # sphenoid
    Spot((0, 48, -42), (11, 19, 13), AIR_HU),  # ethmoid
    Spot((0, 50, -64), (11, 27, 11), AIR_HU),  # nose
    *both_sides(Spot((28, 50, -63), (13, 15, 14), AIR_HU)),  # maxillary
    *both_sides(Spot((56, -40, -46), (9, 13, 13), AIR_HU)),  # mastoid
)
SEPTATED = (0, 2, 6, 7)  # of CELLS
NOSE = 3
RAGGED_MM = 6.0  # CELLS' borders follow a coarse texture by 1.5 mm


def paint_below(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Muscles, then bone, of what lies under the skull's floor. Cells and orbits come after the skull."""
    if space.z.min() > -15:
        return
    t = plan.tissue
    for soft in (*(one for pair in PAIRED_SOFT for one in both_sides(pair)), TONGUE):
        _place(space, picture, soft, t.fat_hu + soft.hu * (t.muscle_hu - t.fat_hu), ragged=1.0)
    for bone in (*(one for pair in PAIRED_BONES for one in both_sides(pair)), PALATE, DENS):
        _place(space, picture, bone, t.diploe_hu + 150 + bone.hu * 0.6 * (t.table_hu - t.diploe_hu), ragged=0.7)
    _vertebra(plan, space, picture)
    _jaws(plan, space, picture)
    _place(space, picture, PHARYNX, AIR_HU, ragged=1.0)


def _place(space: Space, picture: Field, spot: Spot, hu: float, ragged: float) -> None:
    box = box_of(space, spot, ragged * 4)
    if box is not None:
        part = space.part(box)
        distance = ball(part, spot.centre_mm, spot.radius_mm) + ragged * part.coarse[1]
        blend(picture[box], filled(distance) * (picture[box] > -300), hu)


def _vertebra(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Ring of the atlas, canal, cord."""
    box = space.around((0, -48, -95), (26, 26, 27))
    if box is None:
        return
    t, part, seen = plan.tissue, space.part(box), picture[box]
    radius = np.hypot(part.x, part.y + 46)
    low = np.clip((-part.z - 70) / 4, 0, 1)
    blend(seen, low * filled(np.abs(radius - 17) - 3 - 2 * part.coarse[2]), t.diploe_hu + 300)
    blend(seen, low * filled(np.asarray(radius - 13, np.float32)), t.csf_hu)
    blend(seen, low * filled(np.asarray(radius - 6.5, np.float32)), t.white_hu)


def _jaws(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Both alveolar arches, teeth with enamel, the mandible's body; fillings where the head has them."""
    box = space.around((0, 50, -96), (52, 45, 26))
    if box is None:
        return
    t, part, seen = plan.tissue, space.part(box), picture[box]
    radius = np.hypot(part.x / 25, (part.y - 38) / 38)
    bow = np.abs(radius - 1) * 25
    front = (part.y > 38 - 22 * (part.z < -98)) & (seen > -300)
    upper = filled(np.maximum(bow - 5, np.abs(part.z + 80) - 6))
    lower = filled(
        np.maximum(np.abs(np.hypot(part.x / 33, (part.y - 24) / 48) - 1) * 33 - 5, np.abs(part.z + 108) - 11)
    )
    blend(seen, upper * front, t.diploe_hu + 200)
    blend(seen, lower * (part.y > 5) * (seen > -300), t.diploe_hu + 350)
    angle = np.arctan2(part.x, part.y - 38)
    between = np.abs(np.sin(angle * 9)) * 4  # sixteen teeth an arch
    crowns = filled(np.maximum(np.maximum(bow - 4, np.abs(part.z + 90) - 6), 1.6 - between))
    blend(seen, crowns * front * (plan.teeth > 0), 900 + 1500 * plan.teeth)


def paint_cavities(plan: HeadPlan, space: Space, picture: Field) -> None:
    """Orbits with globes, optic nerves and muscles; air cells with walls; septum and turbinates; opaque sinuses."""
    if space.z.min() > 12:
        return
    for side in (-1, 1):
        _orbit(plan, space, picture, side)
    for nth, cell in enumerate(CELLS):
        _cell(plan, space, picture, nth, cell)
    _inside_nose(plan, space, picture)


def _orbit(plan: HeadPlan, space: Space, picture: Field, side: int) -> None:
    box = space.around((side * 31, 60, -38), (19, 29, 18))
    if box is None:
        return
    t, part, seen = plan.tissue, space.part(box), picture[box]
    opening = np.clip((part.y - 28) / 38, 0, 1) ** 0.8  # a cone whose tip lies at the optic canal
    across = part.x - side * (17 + 0.32 * (part.y - 28))
    wall = np.hypot(across, part.z + 38) - 16.5 * opening
    wall = np.maximum(np.maximum(wall, 28 - part.y), part.y - 86).astype(np.float32)
    blend(seen, filled(np.abs(wall) - 0.8) * (part.y < 70) * (seen > -300), t.diploe_hu + 250)
    blend(seen, filled(wall) * (seen > -300), t.fat_hu + 8)
    for aside, up in ((10, 0), (-9, 0), (0, 9), (0, -9)):  # four straight muscles
        muscle = ball(part, (side * (28 + aside * 0.8), 52, -38 + up * 0.8), (2.0, 17, 2.0))
        blend(seen, filled(muscle) * filled(wall), 45.0)
    nerve = np.hypot(part.x - side * (26 + 0.12 * (part.y - 40)), part.z + 38) - 2.2
    blend(seen, filled(nerve) * (part.y > 32) * (part.y < 64) * filled(wall), 35.0)
    globe = ball(part, (side * 32, 72, -38), (12, 12, 12))
    blend(seen, filled(globe), 10.0)
    blend(seen, filled(np.abs(globe) - 0.6), 45.0)
    blend(seen, filled(ball(part, (side * 32, 80, -38), (4.5, 2.2, 4.5))), 75.0)  # lens


def _cell(plan: HeadPlan, space: Space, picture: Field, nth: int, cell: Spot) -> None:
    box = box_of(space, cell, RAGGED_MM + 2)
    if box is None:
        return
    part, seen = space.part(box), picture[box]
    head = (seen > -300).astype(np.float32)
    distance = ball(part, cell.centre_mm, cell.radius_mm) + 1.5 * part.coarse[0]
    blend(seen, filled(np.abs(distance - 0.7) - 0.45) * head, plan.tissue.diploe_hu + 150)
    air = AIR_HU if nth not in plan.opaque_cells else plan.tissue.csf_hu + 12
    septa = filled(0.35 - np.abs(part.fine[0]), 0.3) if nth in SEPTATED else 0.0
    blend(seen, filled(distance) * (1 - 0.8 * septa) * head, air)


def _inside_nose(plan: HeadPlan, space: Space, picture: Field) -> None:
    centre, radius = CELLS[NOSE].centre_mm, CELLS[NOSE].radius_mm
    box = space.around(centre, radius)
    if box is None:
        return
    part, seen = space.part(box), picture[box]
    hollow = filled(ball(part, centre, radius))
    for side in (-1, 1):
        for y, z in ((50, -68), (46, -60)):
            scroll = ball(part, (side * 6.5, y, z), (3.2, 15, 3.4)) + 0.8 * part.fine[1]
            blend(seen, filled(scroll) * hollow, plan.tissue.muscle_hu - 10)
    blend(seen, filled(np.abs(part.x + 1.5 * part.coarse[1]) - 0.8) * hollow, 320.0)
