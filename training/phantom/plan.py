"""What is drawn at random for one head, before a voxel is computed: frozen, and a function of the seed alone.

Ranges follow published CT numbers of tissue and are wide on purpose: what is not varied here, a network learns by
heart and a real scanner then breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.random import Generator

Point: TypeAlias = tuple[float, float, float]


@dataclass(frozen=True)
class Tissue:
    """CT numbers in HU."""

    grey_hu: float
    white_hu: float
    csf_hu: float
    sinus_hu: float  # blood in the dural sinuses: 40 (anaemia) to 72 (dehydration)
    muscle_hu: float
    fat_hu: float
    table_hu: float  # inner and outer table of the vault
    diploe_hu: float


@dataclass(frozen=True)
class Shape:
    """Geometry of one head; lengths in mm, angles in degrees."""

    scale: Point
    tilt_deg: float
    roll_deg: float
    yaw_deg: float
    warp_mm: float
    skull_mm: float
    scalp_mm: float
    depth_offset_mm: float  # the inner table further out (positive: wide subarachnoid space) or in
    sulcus_shift: float  # share of tissue lost at its border: atrophy
    ventricle_growth_mm: float
    falx_mm: float
    tentorium_mm: float
    filled_rim: float  # 0…1, how far brain fills the subarachnoid space up to the inner table: 1 in the young
    table_edge_mm: float  # width of the border of brain and bone: wide where the vault slopes through a slab
    rim_hu: float  # brightness added just inside the inner table: partial volume, dura
    rim_mm: float
    centre_mm: tuple[float, float]  # the patient's centre in the field of view (column, row)


@dataclass(frozen=True)
class Spot:
    """A small ball: calcification, vessel, lacune."""

    centre_mm: Point
    radius_mm: Point
    hu: float


@dataclass(frozen=True)
class Couch:
    """Head holder and table. Lengths in mm, from the centre of the field of view."""

    radius_mm: float
    oval: float  # rows over columns
    thick_mm: float
    from_row_mm: float  # the holder's rim
    hu: float
    foam_mm: float  # 0: no pad
    foam_hu: float
    table_row_mm: float | None  # the table under the holder, where the field of view shows it


@dataclass(frozen=True)
class HeadPlan:
    """One bleed-free head with its mimics."""

    seed: int
    tissue: Tissue
    shape: Shape
    spots: tuple[Spot, ...]  # calcifications and dense vessels: bright, small, not a lesion
    lows: tuple[Spot, ...]  # old infarcts and lacunes: hu is the fraction of CSF, 0…1
    leukoaraiosis: float  # HU taken from the white matter around the ventricles
    falx_calcium: float  # 0…1, share of the falx that is calcified
    craniotomy: Spot | None
    couch: Couch | None
    teeth: float = 0.5  # density of the crowns, 0…1; 0: none
    opaque_cells: tuple[int, ...] = ()  # of face.CELLS: filled with fluid or mucosa
    metal: tuple[Spot, ...] = ()  # clips, coils, fillings, plates
    shunt: Spot | None = None  # centre: the tip in the ventricle


def plan_head(seed: int) -> HeadPlan:
    """Draw one head. The same seed gives the same head on every machine."""
    rng = np.random.default_rng([seed, 1])
    return HeadPlan(
        seed=seed,
        tissue=_tissue(rng),
        shape=_shape(rng),
        spots=(*_calcifications(rng), *_vessels(rng)),
        lows=_lows(rng),
        leukoaraiosis=float(rng.uniform(2, 12)) if rng.random() < 0.35 else 0.0,
        falx_calcium=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.25 else 0.0,
        craniotomy=_craniotomy(rng) if rng.random() < 0.06 else None,
        couch=_couch(rng) if rng.random() < 0.8 else None,
        teeth=float(rng.uniform(0.3, 1)) if rng.random() < 0.85 else 0.0,
        opaque_cells=tuple(int(n) for n in np.flatnonzero(rng.random(8) < 0.12)),
        metal=_metal(rng),
        shunt=_shunt(rng) if rng.random() < 0.04 else None,
    )


def _tissue(rng: Generator) -> Tissue:
    grey = rng.uniform(31, 44)
    return Tissue(
        grey_hu=grey,
        white_hu=grey - rng.uniform(1.5, 13),
        csf_hu=rng.uniform(-2, 15),
        sinus_hu=rng.uniform(42, 72),
        muscle_hu=rng.uniform(45, 68),
        fat_hu=rng.uniform(-115, -70),
        table_hu=rng.uniform(900, 1700),
        diploe_hu=rng.uniform(250, 900),
    )


def _shape(rng: Generator) -> Shape:
    size = rng.uniform(0.9, 1.06)
    x, y, z = (size * rng.uniform(0.95, 1.05) for _ in range(3))
    return Shape(
        scale=(x, y, z),
        tilt_deg=rng.uniform(-14, 22),
        roll_deg=rng.normal(0, 4),
        yaw_deg=rng.normal(0, 5),
        warp_mm=rng.uniform(0.8, 3.2),
        skull_mm=rng.uniform(4.0, 9.5),
        scalp_mm=rng.uniform(3.0, 9.0),
        depth_offset_mm=rng.uniform(-1.2, 2.2),
        sulcus_shift=rng.uniform(-0.25, 0.35),
        ventricle_growth_mm=rng.choice([rng.uniform(-1.5, 1.0), rng.uniform(0.5, 5.5)]),
        falx_mm=rng.uniform(0.8, 2.4),
        tentorium_mm=rng.uniform(0.8, 2.6),
        filled_rim=float(np.clip(rng.uniform(-0.3, 1.3), 0, 1)),
        table_edge_mm=rng.uniform(1.0, 4.5),
        rim_hu=rng.uniform(0, 80) * (rng.random() < 0.75),
        rim_mm=rng.uniform(0.7, 2.4),
        centre_mm=(rng.normal(0, 7), rng.normal(0, 9)),
    )


def _calcifications(rng: Generator) -> list[Spot]:
    spots: list[Spot] = []

    def add(centre: Point, radius: tuple[float, float], hu: tuple[float, float], spread_mm: float = 2.0) -> None:
        x, y, z = (c + rng.normal(0, spread_mm) for c in centre)
        r = rng.uniform(*radius)
        a, b, c = (r * rng.uniform(0.6, 1.6) for _ in range(3))
        spots.append(Spot((x, y, z), (a, b, c), rng.uniform(*hu)))

    if rng.random() < 0.6:
        add((0, -27, 2), (1.0, 3.5), (60, 400))  # pineal
    for side in (-1, 1):  # choroid plexus in the atria, often both sides, often unequal
        if rng.random() < 0.6:
            add((side * 24, -37, 9), (1.0, 4.5), (50, 450), 3.0)
    if rng.random() < 0.25:  # basal ganglia, both sides, faint
        hu = rng.uniform(50, 180)
        for side in (-1, 1):
            for _ in range(rng.integers(1, 4)):
                add((side * 20, 2, 0), (1.0, 3.5), (hu * 0.8, hu * 1.2), 3.5)
    for _ in range(rng.poisson(0.6)):  # arterial wall at the base, dural plaques
        add((rng.choice([-1, 1]) * 12, 0, -22), (0.8, 2.0), (100, 500), 5.0)
    return spots


def _vessels(rng: Generator) -> list[Spot]:
    """Arteries at the base: slightly denser than brain, lying in CSF."""
    hu = rng.uniform(36, 56)
    basilar = Spot((rng.normal(0, 1.5), -16, -28), (1.8, 1.8, 16), hu)
    middle = [Spot((s * 20, 3, -14), (16, 1.5, 1.5), hu + rng.uniform(-4, 4)) for s in (-1, 1)]
    galen = Spot((0, -42, 5), (2.2, 5, 3), hu + 6)
    return [basilar, *middle, galen]


def _lows(rng: Generator) -> tuple[Spot, ...]:
    lows: list[Spot] = []
    if rng.random() < 0.15:  # old territorial infarct
        side = rng.choice([-1, 1])
        centre = (side * rng.uniform(30, 52), rng.uniform(-70, 30), rng.uniform(-10, 45))
        a, b, c = (rng.uniform(10, 24) for _ in range(3))
        lows.append(Spot(centre, (a, b, c), rng.uniform(0.3, 1.0)))
    for _ in range(rng.poisson(0.5)):  # lacunes
        centre = (rng.choice([-1, 1]) * rng.uniform(10, 28), rng.uniform(-20, 20), rng.uniform(-5, 25))
        r = rng.uniform(1.5, 4.0)
        lows.append(Spot(centre, (r, r, r), rng.uniform(0.5, 1.0)))
    return tuple(lows)


def _craniotomy(rng: Generator) -> Spot:
    side = rng.choice([-1, 1])
    r = rng.uniform(8, 28)
    return Spot((side * 62, rng.uniform(-50, 40), rng.uniform(10, 45)), (r, r, r), rng.uniform(0, 60))


def _couch(rng: Generator) -> Couch:
    foam = rng.random() < 0.4
    return Couch(
        radius_mm=rng.uniform(94, 112),
        oval=rng.uniform(1.0, 1.3),
        thick_mm=rng.uniform(0.8, 4.0),
        from_row_mm=rng.uniform(-20, 40),
        hu=rng.uniform(-250, 260),
        foam_mm=rng.uniform(4, 14) if foam else 0.0,
        foam_hu=rng.uniform(-960, -860),
        table_row_mm=rng.uniform(108, 128) if rng.random() < 0.3 else None,
    )


def _metal(rng: Generator) -> tuple[Spot, ...]:
    """Fillings in one mouth out of three, an aneurysm clip or coil in one head out of fifty."""
    metal: list[Spot] = []
    if rng.random() < 0.35:
        for _ in range(int(rng.integers(1, 6))):
            angle = rng.uniform(-1.3, 1.3)
            centre = (25 * np.sin(angle), 38 + 38 * np.cos(angle), -90 + rng.normal(0, 3))
            metal.append(Spot(centre, (rng.uniform(1.5, 3.5), rng.uniform(1.5, 3.5), rng.uniform(1.5, 3)), 3071))
    if rng.random() < 0.02:
        r = rng.uniform(1.2, 4.5)
        centre = (rng.choice([-1, 1]) * rng.uniform(0, 25), rng.uniform(-10, 25), rng.uniform(-25, -8))
        metal.append(Spot(centre, (r, r, r * rng.uniform(0.6, 1.8)), 3071))
    return tuple(metal)


def _shunt(rng: Generator) -> Spot:
    side = rng.choice([-1, 1])
    return Spot((side * rng.uniform(6, 12), rng.uniform(-5, 22), rng.uniform(2, 14)), (1, 1, 1), rng.uniform(150, 500))
