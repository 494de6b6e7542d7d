"""How tissue gets into a picture: blended by the share of the sample that it fills, small things in their own box."""

from __future__ import annotations

import numpy as np

from training.phantom.plan import Point, Spot
from training.phantom.space import Box, Field, Space

EDGE_MM = 1.2  # width over which a border is blended, about one sample
TEXTURE_PEAK = 4.0  # textures of unit variance hardly go beyond


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


def box_of(space: Space, spot: Spot, ragged_mm: float = 0.0, edge_mm: float = EDGE_MM) -> Box | None:
    """Where an ellipsoid whose border moves by up to `ragged_mm` can be seen."""
    wide = 1 + (ragged_mm + edge_mm) / min(spot.radius_mm)
    a, b, c = (r * wide for r in spot.radius_mm)
    return space.around(spot.centre_mm, (a, b, c))


def both_sides(spot: Spot) -> tuple[Spot, Spot]:
    """The spot and its mirror image."""
    x, y, z = spot.centre_mm
    return spot, Spot((-x, y, z), spot.radius_mm, spot.hu)
