"""From scanner millimetres to anatomy: affine, warp, mass effect, and smooth random textures.

All arrays have axes [sample, row, column]; a sample is one thin plane, several of which make a slab.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn.functional import grid_sample

from training.phantom.atlas_in import Atlas
from training.phantom.plan import Point, Shape

Field: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[slice, slice, slice]

TEXTURE_CUBE_MM = 256.0  # side of the cube that textures and warps fill, centred on the template's origin
COARSE_MM, FINE_MM = 18.0, 5.5
LOOK = 6  # samples between two looks for a small thing


@dataclass(frozen=True)
class View:
    """Where the planes lie: row and column pitch in mm, shape in pixels, z of every plane in mm.

    `tilt_deg` is the gantry's: a plane stays at its table position and leans, its rows reaching upwards to the back.
    `window` (first and last row, first and last column, ends excluded) leaves out what is known to be air.
    """

    shape: tuple[int, int]
    pitch_mm: float
    planes_mm: tuple[float, ...]
    tilt_deg: float = 0.0
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Push:
    """Mass effect: brain around `centre_mm` is displaced outwards, by `strength` at the centre, over `reach_mm`."""

    centre_mm: Point
    reach_mm: float
    strength: float


@dataclass(frozen=True)
class Space:
    """Anatomy at every sample: template RAS mm, depth inside the inner table mm, tissue fractions, textures."""

    x: Field
    y: Field
    z: Field
    depth: Field
    grey: Field
    white: Field
    ventricle: Field  # signed distance in mm, negative inside
    coarse: Field  # (3, …) about unit variance
    fine: Field  # (3, …)
    rows_mm: Field  # scanner coordinates: rows grow to posterior
    columns_mm: Field

    def part(self, box: Box) -> Space:
        """The samples of a box, as views: what is painted there is painted here."""
        names = ("x", "y", "z", "depth", "grey", "white", "ventricle", "rows_mm", "columns_mm")
        fields = {name: getattr(self, name)[box] for name in names}
        return Space(**fields, coarse=self.coarse[:, *box], fine=self.fine[:, *box])

    def around(self, centre: Point, reach: Point) -> Box | None:
        """A box that holds every sample within `reach` (half widths, mm) of `centre`; None: there is none.

        Most of what is painted is small: looked for at every LOOK-th sample, then painted in its box only.
        """
        at = (slice(None), slice(None, None, LOOK), slice(None, None, LOOK))
        slack = 1.6 * LOOK * self.pitch_mm
        near = np.abs(self.x[at] - centre[0]) < reach[0] + slack
        near &= np.abs(self.y[at] - centre[1]) < reach[1] + slack
        near &= np.abs(self.z[at] - centre[2]) < reach[2] + slack
        planes, rows, columns = (np.flatnonzero(near.any(axes)) for axes in ((1, 2), (0, 2), (0, 1)))
        if not len(planes):
            return None
        return (
            slice(int(planes[0]), int(planes[-1]) + 1),
            slice(max(int(rows[0]) - 1, 0) * LOOK, (int(rows[-1]) + 1) * LOOK),
            slice(max(int(columns[0]) - 1, 0) * LOOK, (int(columns[-1]) + 1) * LOOK),
        )

    @property
    def pitch_mm(self) -> float:
        """Between two rows."""
        return float(self.rows_mm[0, 1, 0] - self.rows_mm[0, 0, 0]) if self.rows_mm.shape[1] > 1 else 1.0


def sample_space(atlas: Atlas, shape: Shape, view: View, seed: int, pushes: Sequence[Push]) -> Space:
    """Evaluate the atlas, seen through this head's geometry, on the planes of the view."""
    columns, rows, points = _template_points(shape, view)
    points = points + _warp(points, shape.warp_mm, seed)
    textures = _sampled(_texture_cube(seed), points, _cube_origin(), TEXTURE_CUBE_MM / 128)
    depth = _sampled(atlas.depth, points, atlas.origin_mm)[0]
    brain = _sampled(atlas.brain, _pushed(points, pushes), atlas.origin_mm)
    x, y, z = np.moveaxis(points, -1, 0)
    return Space(
        x, y, z, depth + shape.depth_offset_mm, brain[0], brain[1], brain[2], textures[:3], textures[3:], rows, columns
    )


def _template_points(shape: Shape, view: View) -> tuple[Field, Field, Field]:
    """Columns and rows in mm about the view's centre, and template RAS points (…, 3)."""
    height, width = view.shape
    row = ((np.arange(height) - (height - 1) / 2) * view.pitch_mm).astype(np.float32)
    column = ((np.arange(width) - (width - 1) / 2) * view.pitch_mm).astype(np.float32)
    if view.window is not None:
        row, column = row[view.window[0] : view.window[1]], column[view.window[2] : view.window[3]]
    plane = np.asarray(view.planes_mm, np.float32)
    z, y, x = np.meshgrid(plane, row, column, indexing="ij")
    upwards, backwards = np.sin(np.deg2rad(view.tilt_deg)), np.cos(np.deg2rad(view.tilt_deg))
    across, behind, high = x - shape.centre_mm[0], backwards * y - shape.centre_mm[1], z + upwards * y
    scanner = np.stack([-across, -behind, high], -1)  # radiological to RAS
    matrix = _rotation(shape).T @ np.diag(1.0 / np.asarray(shape.scale))
    points = scanner @ matrix.T.astype(np.float32) + np.array([0.0, -17.0, 0.0], np.float32)  # brain centre: y −17
    return x, y, points.astype(np.float32)


def _rotation(shape: Shape) -> NDArray[np.float64]:
    a, b, c = np.deg2rad([shape.tilt_deg, shape.roll_deg, shape.yaw_deg])
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    roll = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    yaw = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(tilt @ roll @ yaw)


def _cube_origin() -> Point:
    low = -TEXTURE_CUBE_MM / 2
    return (low, low - 17.0, low)


def _warp(points: Field, amount_mm: float, seed: int) -> Field:
    """Smooth displacement (…, 3) in mm: random vectors on a 32 mm lattice, cubic in between."""
    moved = _sampled(_lattice(amount_mm, seed), points, _cube_origin(), TEXTURE_CUBE_MM / 31)
    return np.moveaxis(moved, 0, -1)


@lru_cache(maxsize=1)  # a series is drawn some slices at a time, all of one head
def _lattice(amount_mm: float, seed: int) -> torch.Tensor:
    raw = np.random.default_rng([seed, 2]).normal(0, amount_mm, (3, 8, 8, 8))
    return torch.from_numpy(ndimage.zoom(raw, (1, 4, 4, 4), order=3).astype(np.float32))


def _pushed(points: Field, pushes: Sequence[Push]) -> Field:
    for push in pushes:
        away = points - np.asarray(push.centre_mm, np.float32)
        near = np.exp(-(away**2).sum(-1, keepdims=True) / np.float32(2 * push.reach_mm**2))
        points = points - away * (push.strength * near)
    return points


@lru_cache(maxsize=1)
def _texture_cube(seed: int) -> torch.Tensor:
    """(6, 129, 129, 129) smooth noise of about unit variance, 2 mm apart."""
    rng = np.random.default_rng([seed, 3])
    cubes = []
    for scale_mm in (COARSE_MM, FINE_MM):
        nodes = int(TEXTURE_CUBE_MM / scale_mm)
        raw = torch.from_numpy(rng.normal(0, 1.35, (1, 3, nodes, nodes, nodes)).astype(np.float32))
        cubes.append(torch.nn.functional.interpolate(raw, (129, 129, 129), mode="trilinear", align_corners=True)[0])
    return torch.cat(cubes)


def _sampled(volume: torch.Tensor, points: Field, origin_mm: Point, pitch_mm: float = 1.0) -> Field:
    """Trilinear values (channel, …) of `volume` (channel, z, y, x) at RAS points (…, 3)."""
    size = np.asarray(volume.shape[:0:-1], np.float32)  # x, y, z
    unit = (points - np.asarray(origin_mm, np.float32)) * (2.0 / pitch_mm) / (size - 1) - 1
    grid = torch.from_numpy(np.ascontiguousarray(unit, np.float32))[None]
    sampled = grid_sample(volume[None], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return np.asarray(sampled[0].numpy())
