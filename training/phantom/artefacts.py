"""Artefacts that come from projections: beam hardening between dense bones, streaks of metal.

A coarse slice is projected (Radon), what a real detector gets wrong is computed there, and projected back. Only
slices that hold enough dense bone or any metal are worth it: 40 ms each.
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from skimage.transform import iradon, radon

from training.phantom.space import Field

SIDE = 96  # of the coarse slice
ANGLES_DEG = np.arange(0.0, 180.0, 3.0)
DENSE_HU, DENSE_SHARE = 700.0, 0.045  # of a slice's samples: petrous pyramids, skull base, a tangential vault
METAL_HU = 2600.0
FADES_MM = 35.0  # streaks are half as strong so far from the metal
FIELD_MM = 230.0  # bands are stated for a slice of this width


def projected_artefacts(rng: Generator, clean: Field, pitch_mm: float, hardening_hu: float, metal_hu: float) -> Field:
    """HU to add to slices (n, H, W). The seed decides the streaks' noise."""
    added = np.zeros_like(clean)
    for nth, plane in enumerate(clean):
        metal = plane > METAL_HU
        if metal_hu and metal.any():
            far_mm = ndimage.distance_transform_edt(~metal[::2, ::2]).repeat(2, 0).repeat(2, 1) * 2 * pitch_mm
            fading = 1 / (1 + far_mm[: plane.shape[0], : plane.shape[1]] / FADES_MM)
            added[nth] += _streaks(rng, plane, metal, metal_hu) * fading
        if hardening_hu and float((plane > DENSE_HU).mean()) * (pitch_mm * len(plane) / FIELD_MM) ** 2 > DENSE_SHARE:
            added[nth] += _bands(plane, hardening_hu)
    return added


def _bands(plane: Field, hardening_hu: float) -> Field:
    """Rays through much bone arrive harder than the correction believes: too little is measured."""
    bone = np.clip(_coarse(plane) - 250, 0, 1800) / 1000
    paths = radon(_round(bone), ANGLES_DEG, circle=True)
    return _back(-(paths**2), plane, hardening_hu)


def _streaks(rng: Generator, plane: Field, metal: Field, metal_hu: float) -> Field:
    """Hardly a photon comes through metal: those rays are noise, and too dark."""
    share = _coarse(metal.astype(np.float32), np.max)
    paths = radon(_round(np.asarray(share, np.float32)), ANGLES_DEG, circle=True)
    starved = -(paths**2) + paths * rng.normal(0, 1.2, paths.shape)
    return _back(starved, plane, metal_hu)


def _back(wrong: Field, plane: Field, amount_hu: float) -> Field:
    picture = iradon(wrong, ANGLES_DEG, filter_name="ramp", circle=True)
    picture = picture - picture.mean()
    strongest = np.percentile(np.abs(picture), 98)
    scaled = picture * (amount_hu / max(float(strongest), 1e-6))
    limited = np.clip(scaled, -6 * amount_hu, 6 * amount_hu)
    zoom = (plane.shape[0] / SIDE, plane.shape[1] / SIDE)
    return np.asarray(ndimage.zoom(limited, zoom, order=1, grid_mode=True, mode="nearest"), np.float32)


def _coarse(plane: Field, pool: object = np.mean) -> Field:
    """(SIDE, SIDE) by blocks as equal as the sizes allow; the highest value where `pool` is np.max."""
    edges = [np.linspace(0, size, SIDE + 1).astype(int)[:-1] for size in plane.shape]
    if pool is np.max:
        return np.asarray(np.maximum.reduceat(np.maximum.reduceat(plane, edges[0], 0), edges[1], 1))
    counts = [np.diff([*edge, size]) for edge, size in zip(edges, plane.shape, strict=True)]
    summed = np.add.reduceat(np.add.reduceat(plane, edges[0], 0), edges[1], 1)
    return np.asarray(summed / (counts[0][:, None] * counts[1][None, :]), np.float32)


def _round(plane: Field) -> Field:
    """Nothing outside the circle that the projections cover."""
    at = np.arange(SIDE) - (SIDE - 1) / 2
    return np.asarray(np.where(np.hypot(at[:, None], at[None, :]) < SIDE / 2 - 1, plane, 0), np.float32)
