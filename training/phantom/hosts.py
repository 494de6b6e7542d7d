"""Bleeds painted into real slices that have none: real bone, brain and noise under a lesion whose place is known.

What the step from phantom to real costs is mostly false alarms on anatomy that no phantom draws. A host is a slice of
a real head, a bleed-free one; every picture made of it is the host as it is, or with one lesion of its own. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from training.phantom.lesions import CHANNELS
from training.phantom.render import labels_of
from training.slices_out import PITCH_MM, SLICE_SHAPE, SliceTable

Plane = NDArray[np.float32]
Mask = NDArray[np.bool_]

BONE_FROM_HU = 150.0
AIR_HU, FAT_HU, WHITE = -1000.0, -90.0, 250.0
SCALP_MM = 14.0
LEAST_BRAIN_MM2 = 4500.0  # less of it is the skull base or the vertex: nothing is planted there
BRAIN_HU = (12.0, 48.0)  # what the mean of a brain lies between
CLOSED_MM, OPENED_MM = 6.0, 3.0  # gaps of the vault that are closed, bridges to the orbits that are cut
SMOOTH_MM = 2.2  # the host below a lesion: noise stays, density goes
TRIES = 6  # for a lesion that can be seen
LEAST_MM2, LEAST_HU = 60.0, 8.0  # of a lesion in its slice: its area, and how much brighter than the host it is


@dataclass(frozen=True)
class Host:
    """One bleed-free slice. hu (H, W), pitch in mm, the inside of the skull (H, W) or None where none was found."""

    hu: Plane
    pitch_mm: float
    inside: Mask | None


def host_of(hu: Plane, pitch_mm: float) -> Host:
    """The slice on the grid of the phantom's slices, with its brain found."""
    wanted_mm = sum(PITCH_MM) / 2
    zoomed = ndimage.zoom(ndimage.gaussian_filter(hu, 0.4 * wanted_mm / pitch_mm), pitch_mm / wanted_mm, order=1)
    fitted = _fitted(zoomed.astype(np.float32))
    return Host(fitted, wanted_mm, inside_of(fitted, wanted_mm))


def _fitted(plane: Plane) -> Plane:
    """Cut or padded about its middle to SLICE_SHAPE."""
    out = np.full(SLICE_SHAPE, AIR_HU, np.float32)
    take = [min(have, want) for have, want in zip(plane.shape, SLICE_SHAPE, strict=True)]
    source = tuple(slice((have - n) // 2, (have - n) // 2 + n) for have, n in zip(plane.shape, take, strict=True))
    target = tuple(slice((want - n) // 2, (want - n) // 2 + n) for want, n in zip(SLICE_SHAPE, take, strict=True))
    out[target] = plane[source]
    return out


def inside_of(hu: Plane, pitch_mm: float) -> Mask | None:
    """What the vault encloses, where it is brain; None: not enough of it, or not like brain."""
    bone = _closed(hu > BONE_FROM_HU, CLOSED_MM / pitch_mm)
    hollow = ndimage.binary_fill_holes(bone) & ~bone
    hollow = ndimage.binary_opening(hollow, iterations=max(1, round(OPENED_MM / pitch_mm)))
    parts, count = ndimage.label(hollow)
    if not count:
        return None
    inside = np.asarray(parts == 1 + int(np.argmax(ndimage.sum(hollow, parts, range(1, count + 1)))))
    if inside.sum() * pitch_mm**2 < LEAST_BRAIN_MM2 or not BRAIN_HU[0] < float(np.median(hu[inside])) < BRAIN_HU[1]:
        return None
    return inside


def hosted(
    hosts: Sequence[Host], pictures: int, lesion_share: float, seed: int, *, mimic_share: float = 0.0
) -> SliceTable:
    """`pictures` of the hosts in turn, that share of them with a lesion; deterministic by seed.

    `mimic_share`: how often each kind of mimic (calcification, infarct, partial volume of the vault) is drawn too.

    Raises:
        ValueError: there is no host, or none with enough brain to plant in.
    """
    if not any(host.inside is not None for host in hosts):
        raise ValueError("no slice with a brain in it was found among the hosts")
    hu = np.empty((pictures, *SLICE_SHAPE), np.int16)
    masks = np.zeros((pictures, len(CHANNELS), *SLICE_SHAPE), bool)
    pitch_mm = np.empty(pictures, np.float32)
    for nth in range(pictures):
        rng = np.random.default_rng([seed, nth, 21])
        host = hosts[nth % len(hosts)]
        plane = host.hu
        if host.inside is not None:
            depth = np.asarray(ndimage.distance_transform_edt(host.inside) * host.pitch_mm, np.float32)
            wants = rng.random(len(MIMICS)) < mimic_share
            for mimic in (draw for draw, wanted in zip(MIMICS, wants, strict=True) if wanted):
                plane = plane + mimic(host, depth, rng)
            if rng.random() < lesion_share:
                plane, masks[nth] = _planted(Host(plane, host.pitch_mm, host.inside), host.inside, depth, rng)
        hu[nth], pitch_mm[nth] = np.round(np.clip(plane, -1024, 3071)), host.pitch_mm
    labels = np.concatenate([labels_of(masks[at : at + 1], float(pitch_mm[at])) for at in range(pictures)])
    weights = (1 << np.arange(len(CHANNELS), dtype=np.uint8)).reshape(1, -1, 1, 1)
    heads = -1 - np.arange(pictures, dtype=np.int64) % len(hosts)
    kinds = np.array(["+".join(name for name, here in zip(CHANNELS, m, strict=True) if here.any()) for m in masks])
    return SliceTable(hu, (masks * weights).sum(1).astype(np.uint8), labels, pitch_mm, heads, kinds)


def _planted(host: Host, inside: Mask, depth: Plane, rng: Generator) -> tuple[Plane, NDArray[np.bool_]]:
    """The host with one lesion, and its masks (C, H, W)."""
    masks = np.zeros((len(CHANNELS), *host.hu.shape), bool)
    low = ndimage.gaussian_filter(host.hu, SMOOTH_MM / host.pitch_mm)
    for _ in range(TRIES):
        name = str(rng.choice(list(SHAPES)))
        share, rim = SHAPES[name](host, depth, rng)
        share = np.asarray(share * inside, np.float32)
        blood = rng.uniform(46, 80) + rng.uniform(0, 3) * _texture(host, rng, 5.0)
        brighter = share * np.maximum(blood - low, 0)
        mask = share > 0.5
        if mask.sum() * host.pitch_mm**2 >= LEAST_MM2 and brighter[mask].mean() >= LEAST_HU:
            masks[CHANNELS.index(CHANNEL[name])] = mask
            seen = host.hu - rim * rng.uniform(4, 14) * (host.hu > 15)
            return np.asarray(seen + brighter, np.float32), masks
    return host.hu, masks


def _texture(host: Host, rng: Generator, grain_mm: float) -> Plane:
    """Smooth, unit variance."""
    drawn = ndimage.gaussian_filter(rng.normal(size=host.hu.shape), grain_mm / host.pitch_mm)
    return np.asarray(drawn / drawn.std(), np.float32)


def _soft(distance: Plane, width_mm: float) -> Plane:
    """Distance in mm, negative inside, to a share of 0…1: partial volume."""
    return np.clip(0.5 - distance / width_mm, 0, 1)


def _away(host: Host, rng: Generator, where: Mask) -> tuple[Plane, Plane]:
    """(rows, columns) in mm from a chosen place."""
    places = np.argwhere(where)
    row, column = places[rng.integers(len(places))] if len(places) else (0, 0)
    rows, columns = np.mgrid[: host.hu.shape[0], : host.hu.shape[1]]
    return (rows - row) * host.pitch_mm, (columns - column) * host.pitch_mm


def _ball(host: Host, depth: Plane, rng: Generator) -> tuple[Plane, Plane]:
    """An intraparenchymal bleed: ragged, with a dark rim."""
    radius = rng.uniform(4.5, 20)
    rows, columns = _away(host, rng, depth > min(0.7 * radius, 0.8 * float(depth.max())))
    turn, long = rng.uniform(0, np.pi), rng.uniform(1, 1.7)
    along, across = rows * np.cos(turn) + columns * np.sin(turn), columns * np.cos(turn) - rows * np.sin(turn)
    ragged = rng.uniform(0, 0.3) * radius * _texture(host, rng, 4.5)
    distance = np.hypot(along / long, across * long**0.5) - radius + ragged
    rim = np.clip(1 - np.abs(distance) / rng.uniform(2, 9), 0, 1) * (distance > 0) * (depth > 0)
    return _soft(distance, rng.uniform(1.5, 4)), np.asarray(rim, np.float32)


def _layer(host: Host, depth: Plane, rng: Generator) -> tuple[Plane, Plane]:
    """Subdural: a crescent along the inner table of one side."""
    rows, columns = _away(host, rng, (depth > 0) & (depth < 2.5 * host.pitch_mm))
    away = np.hypot(rows, columns) / rng.uniform(28, 80)
    thick = rng.uniform(4, 14) * np.clip(1.15 - away**2, 0, 1) + 0.6 * _texture(host, rng, 9.0)
    return _soft(np.where(thick > 0.8, depth - thick, 9.0), rng.uniform(1.2, 3)), np.zeros_like(depth)


def _lens(host: Host, depth: Plane, rng: Generator) -> tuple[Plane, Plane]:
    """Epidural: the part of a disc about a place at the inner table that lies within it."""
    rows, columns = _away(host, rng, (depth > 0) & (depth < 2.5 * host.pitch_mm))
    distance = np.hypot(rows, columns) - rng.uniform(14, 32)
    return _soft(np.maximum(distance, depth - rng.uniform(8, 22)), rng.uniform(1.2, 3)), np.zeros_like(depth)


def _sulci(host: Host, depth: Plane, rng: Generator) -> tuple[Plane, Plane]:
    """Subarachnoid: what is dark near a place turns bright."""
    rows, columns = _away(host, rng, depth > 2)
    near = _soft(np.hypot(rows, columns) - rng.uniform(18, 40) + 3 * _texture(host, rng, 6.0), 10.0)
    smooth = ndimage.gaussian_filter(host.hu, 1.0 / host.pitch_mm)
    return near * np.clip((22 - smooth) / 8, 0, 1) * (depth < 22), np.zeros_like(depth)


def _ventricle(host: Host, depth: Plane, rng: Generator) -> tuple[Plane, Plane]:
    """Intraventricular: the back part of the deep fluid, level with the table."""
    smooth = ndimage.gaussian_filter(host.hu, 1.2 / host.pitch_mm)
    fluid = (smooth < 19) & (depth > 22)
    if not fluid.any():
        return np.zeros_like(depth), np.zeros_like(depth)
    rows = np.argwhere(fluid)[:, 0]
    level = np.quantile(rows, rng.uniform(0.1, 0.8))
    back = (np.arange(len(depth))[:, None] - level) * host.pitch_mm
    return np.clip((22 - smooth) / 8, 0, 1) * _soft(-back, 2.0) * (depth > 22), np.zeros_like(depth)


def _calcified(host: Host, depth: Plane, rng: Generator) -> Plane:
    """One to three small spots far brighter than blood: pineal, choroid plexus, basal ganglia, falx."""
    added = np.zeros_like(depth)
    for _ in range(int(rng.integers(1, 4))):
        rows, columns = _away(host, rng, depth > 12)
        distance = np.hypot(rows, columns * rng.uniform(0.6, 1.6)) - rng.uniform(1, 4.5)
        added = np.maximum(added, _soft(distance, rng.uniform(1.5, 4)) * rng.uniform(60, 450))
    return np.asarray(added * (depth > 0), np.float32)


def _infarct(host: Host, depth: Plane, rng: Generator) -> Plane:
    """An area that is darker, as after a stroke; at its darkest it is fluid."""
    rows, columns = _away(host, rng, depth > 4)
    distance = np.hypot(rows, columns * rng.uniform(0.6, 1.6)) - rng.uniform(8, 28) + 3 * _texture(host, rng, 7.0)
    wanted = _soft(distance, rng.uniform(2, 8)) * rng.uniform(5, 22) * (depth > 0)
    return np.asarray(-np.minimum(wanted, np.maximum(host.hu - 6, 0)), np.float32)


def _vault(_: Host, depth: Plane, rng: Generator) -> Plane:
    """Bone of a sloping vault that a thick slice holds as well: brightest at the table, on one side more."""
    middle = np.argwhere(depth > 0).mean(0)
    rows, columns = np.mgrid[: depth.shape[0], : depth.shape[1]]
    side = 0.5 + 0.5 * np.cos(np.arctan2(rows - middle[0], columns - middle[1]) - rng.uniform(0, 2 * np.pi))
    fall = np.exp(-depth / rng.uniform(0.8, 3.0))
    return np.asarray(rng.uniform(10, 60) * side ** rng.uniform(0, 3) * fall * (depth > 0), np.float32)


MIMICS = (_calcified, _infarct, _vault)
SHAPES: dict[str, Callable[[Host, Plane, Generator], tuple[Plane, Plane]]] = {
    "ball": _ball,
    "layer": _layer,
    "lens": _lens,
    "sulci": _sulci,
    "ventricle": _ventricle,
}
CHANNEL = {
    "ball": "intraparenchymal",
    "layer": "subdural_epidural",
    "lens": "subdural_epidural",
    "sulci": "subarachnoid",
    "ventricle": "intraventricular",
}


def restored(hu: Plane, pitch_mm: float) -> Plane:
    """An 8-bit picture of 0…255 HU with air around the head, fat below the skin and bone above its white again.

    Nothing above 255 is known: bone rises with the depth below its surface, as a vault's does.
    """
    body = ndimage.binary_fill_holes(_closed(hu > 2, 4 / pitch_mm))
    bone = hu >= WHITE
    vault = ndimage.binary_fill_holes(_closed(bone, 10 / pitch_mm))
    skin = np.asarray(ndimage.distance_transform_edt(body) * pitch_mm, np.float32)
    deep = np.asarray(ndimage.distance_transform_edt(bone) * pitch_mm, np.float32)
    told = np.where(bone, np.minimum(255 + 260 * deep, 1500), hu)
    told = np.where((hu <= 2) & ~vault & (skin < SCALP_MM), FAT_HU, told)
    return np.asarray(np.where(body, told, AIR_HU), np.float32)


def _closed(mask: Mask, reach: float) -> Mask:
    """Closed by `reach` pixels, beyond the image's edge as well."""
    times = max(1, round(reach))
    return np.asarray(ndimage.binary_closing(np.pad(mask, times), iterations=times)[times:-times, times:-times])
