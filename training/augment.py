"""From cached slices to training batches on the served grid: geometry, density, blur, noise, shading.

Training without augmentation looked as good on phantoms and much worse on real scans: this module is not optional.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate

from training.preprocess import AIR_HU, GRID_PITCH_MM, GRID_SIZE


@dataclass(frozen=True)
class Ranges:
    """How far a training slice may be bent. Angles in degrees, lengths in mm, densities in HU."""

    turn_deg: float = 12.0
    zoom: float = 0.12
    shift_mm: float = 9.0
    gain: float = 0.07
    offset_hu: float = 5.0
    noise_hu: float = 5.0
    shading_hu: float = 4.0


NONE = Ranges(0, 0, 0, 0, 0, 0, 0)


def centroids_mm(hu: Tensor, pitch_mm: Tensor) -> Tensor:
    """(N, 2) body centroid (x, y) from the image centre in mm, as ServedGrid computes it."""
    body = ((hu + 500) / 200).clamp(0, 1)
    height, width = hu.shape[1:]
    mass = body.sum((1, 2)) + 1e-3
    x = (body.sum(1) * (torch.arange(width) - (width - 1) / 2)).sum(1) / mass
    y = (body.sum(2) * (torch.arange(height) - (height - 1) / 2)).sum(1) / mass
    return torch.stack([x, y], 1) * pitch_mm[:, None]


def to_grid(
    hu: Tensor, masks: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hu (N, H, W) HU, masks (N, 5, H, W) 0/1 → the same on the served grid (N, S, S), (N, 5, S, S), bent at random."""
    grid = _sampling_grid(hu, pitch_mm, ranges, draw)
    image = grid_sample(hu[:, None] - AIR_HU, grid, padding_mode="zeros", align_corners=False)[:, 0] + AIR_HU
    target = grid_sample(masks, grid, padding_mode="zeros", align_corners=False)
    if ranges is not NONE:
        image = _density(_blurred(image, draw), ranges, draw)
    return image, (target > 0.5).float()


def _uniform(count: int, reach: float, draw: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=draw) * 2 - 1) * reach


def _sampling_grid(hu: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator) -> Tensor:
    count, height, width = hu.shape
    angle = torch.deg2rad(_uniform(count, ranges.turn_deg, draw))
    zoom = torch.exp(_uniform(count, ranges.zoom, draw))
    stretch = torch.exp(_uniform(count, ranges.zoom / 3, draw))
    flip = torch.where(torch.rand(count, generator=draw) < 0.5, -1.0, 1.0) if ranges is not NONE else torch.ones(count)
    shift = centroids_mm(hu, pitch_mm) + torch.stack([_uniform(count, ranges.shift_mm, draw) for _ in range(2)], 1)
    half_mm = GRID_SIZE * GRID_PITCH_MM / 2
    across, down = half_mm * zoom / (pitch_mm * width / 2), half_mm * zoom * stretch / (pitch_mm * height / 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([across * cos * flip, -across * sin, shift[:, 0] / (pitch_mm * width / 2)], 1)
    second = torch.stack([down * sin * flip, down * cos, shift[:, 1] / (pitch_mm * height / 2)], 1)
    theta = torch.stack([first, second], 1)
    return affine_grid(theta, [count, 1, GRID_SIZE, GRID_SIZE], align_corners=False)


def _blurred(image: Tensor, draw: torch.Generator) -> Tensor:
    amount = torch.rand(len(image), 1, 1, generator=draw) * 1.6 - 0.7  # below zero it sharpens
    soft = avg_pool2d(image[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    return image + amount * (torch.rand(len(image), 1, 1, generator=draw) < 0.6) * (soft - image)


def _density(image: Tensor, ranges: Ranges, draw: torch.Generator) -> Tensor:
    count = len(image)
    gain = 1 + _uniform(count, ranges.gain, draw)
    offset = _uniform(count, ranges.offset_hu, draw)
    grain = torch.randn(image.shape, generator=draw)
    coarse = avg_pool2d(grain[:, None], 3, stride=1, padding=1)[:, 0] * 2.2
    mix = torch.rand(count, 1, 1, generator=draw)
    sigma = torch.rand(count, 1, 1, generator=draw) * ranges.noise_hu
    shading = (
        torch.randn(count, 1, 4, 4, generator=draw) * ranges.shading_hu * torch.rand(count, 1, 1, 1, generator=draw)
    )
    smooth = interpolate(shading, image.shape[1:], mode="bilinear", align_corners=True)[:, 0]
    inside = (image > -300).float()
    bent = image * gain[:, None, None] + inside * (
        offset[:, None, None] + smooth + sigma * torch.lerp(grain, coarse, mix)
    )
    return _clipped(bent, draw)


def _clipped(image: Tensor, draw: torch.Generator) -> Tensor:
    """Some archives hold bone cut off at a few hundred HU: one picture in seven is trained like that."""
    top = 200 + 300 * torch.rand(len(image), 1, 1, generator=draw)
    chosen = torch.rand(len(image), 1, 1, generator=draw) < 0.15
    return torch.where(chosen, torch.minimum(image, top), image)
