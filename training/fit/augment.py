"""From cached slices to training batches on the served grid: geometry, density, blur, noise, shading.

On tensors of a batch: MONAI's transforms take one slice at a time and cost several times as much on one thread.
Training without augmentation looked as good on phantoms and much worse on real scans: this module is not optional.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample, interpolate, max_pool2d

from training.fit.options import NONE, Ranges
from training.preprocess import AIR_HU, GRID_PITCH_MM, GRID_SIZE
from training.slices_out import SliceTable

__all__ = ["NONE", "Ranges", "bent", "centroids_mm", "coarser", "plain_grid", "reshaped", "to_grid"]
FINEST_MM = 0.65  # pixels finer than this are averaged first: sampling the grid from them would alias
BRAIN_HU = 34.0  # about which contrast is spread


def centroids_mm(hu: Tensor, pitch_mm: Tensor) -> Tensor:
    """(N, 2) body centroid (x, y) from the image centre in mm, as ServedGrid has it. pitch_mm (N, 2): rows first."""
    body = ((hu + 500) / 200).clamp(0, 1)
    height, width = hu.shape[1:]
    mass = body.sum((1, 2)) + 1e-3
    x = (body.sum(1) * (torch.arange(width, device=hu.device) - (width - 1) / 2)).sum(1) / mass
    y = (body.sum(2) * (torch.arange(height, device=hu.device) - (height - 1) / 2)).sum(1) / mass
    return torch.stack([x, y], 1) * pitch_mm.flip(1)


def to_grid(
    hu: Tensor, masks: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Hu (N, H, W) HU, masks (N, C, H, W) 0/1, pitch_mm (N,) or (N, 2) → the same on the served grid (N, S, S),
    (N, C, S, S), bent at random.
    """
    image, target = reshaped(hu, masks, pitch_mm, ranges, draw)
    return (image if ranges is NONE else bent(image, ranges, draw)), target


def reshaped(
    hu: Tensor, masks: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The geometry alone: turned, scaled, shifted, mirrored, cropped."""
    both = pitch_mm[:, None].repeat(1, 2) if pitch_mm.ndim == 1 else pitch_mm
    hu, masks, both = coarser(hu, masks, both)
    grid = _sampling_grid(hu, both, ranges, draw)
    image = grid_sample(hu[:, None] - AIR_HU, grid, padding_mode="zeros", align_corners=False)[:, 0] + AIR_HU
    target = grid_sample(masks, grid, padding_mode="zeros", align_corners=False)
    if ranges.crop_mm:
        seen = _field_of_view(len(image), ranges.crop_mm, draw).to(image.device)
        image, target = torch.where(seen, image, AIR_HU), target * seen[:, None]
    return image, (target > 0.5).float()


def bent(image: Tensor, ranges: Ranges, draw: torch.Generator) -> Tensor:
    """The densities alone: (N, S, S) HU moved, blurred or sharpened, spread, shaded, made noisy, clipped."""
    if ranges.motion_mm:
        image = _moved(image, ranges.motion_mm, draw)
    if ranges.contrast:
        spread = torch.exp(_uniform(len(image), ranges.contrast, draw)).to(image.device)[:, None, None]
        soft = (image > -20) & (image < 120)
        image = torch.where(soft, BRAIN_HU + (image - BRAIN_HU) * spread, image)
    return _density(_blurred(image, ranges, draw), ranges, draw)


def plain_grid(table: SliceTable, rows: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
    """Slices and masks of a table on the served grid without augmentation, for looking at."""
    hu = torch.from_numpy(table.hu[rows].astype(np.float32))
    masks = torch.from_numpy(table.masks(rows).astype(np.float32))
    return to_grid(hu, masks, torch.from_numpy(table.pitch_mm[rows]), NONE, torch.Generator().manual_seed(0))


def coarser(hu: Tensor, masks: Tensor, pitch_mm: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Slices of fine pixels averaged to at least FINEST_MM; a mask keeps whatever it touches."""
    times = int(2 * FINEST_MM / float(pitch_mm.max()))
    if times < 2:
        return hu, masks, pitch_mm
    return avg_pool2d(hu[:, None], times)[:, 0], max_pool2d(masks, times), pitch_mm * times


def _field_of_view(count: int, crop_mm: float, draw: torch.Generator) -> Tensor:
    """(N, S, S) true inside what is left when each border loses up to crop_mm, in half of the slices."""
    lost = torch.rand(count, 4, generator=draw) * crop_mm / GRID_PITCH_MM * (torch.rand(count, 1, generator=draw) < 0.5)
    at = torch.arange(GRID_SIZE)[None]
    rows, columns = ((at >= lost[:, nth : nth + 1]) & (at < GRID_SIZE - lost[:, nth + 1 : nth + 2]) for nth in (0, 2))
    return rows[:, :, None] & columns[:, None]


def _moved(image: Tensor, motion_mm: float, draw: torch.Generator) -> Tensor:
    """In a third of the slices up to 45 % of the rays saw the head elsewhere."""
    count = len(image)
    shift = torch.stack([_uniform(count, motion_mm, draw) for _ in range(2)], 1) * 2 / (GRID_SIZE * GRID_PITCH_MM)
    turn = torch.deg2rad(_uniform(count, motion_mm, draw))  # about a degree a millimetre
    share = 0.45 * torch.rand(count, 1, 1, generator=draw) * (torch.rand(count, 1, 1, generator=draw) < 0.34)
    first = torch.stack([torch.cos(turn), -torch.sin(turn), shift[:, 0]], 1)
    second = torch.stack([torch.sin(turn), torch.cos(turn), shift[:, 1]], 1)
    grid = affine_grid(torch.stack([first, second], 1), [count, 1, GRID_SIZE, GRID_SIZE], align_corners=False)
    away = grid_sample((image - AIR_HU)[:, None], grid.to(image.device), align_corners=False)[:, 0] + AIR_HU
    return torch.lerp(image, away, share.to(image.device))


def _uniform(count: int, reach: float, draw: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=draw) * 2 - 1) * reach


def _sampling_grid(hu: Tensor, pitch_mm: Tensor, ranges: Ranges, draw: torch.Generator) -> Tensor:
    count, height, width = hu.shape
    angle = torch.deg2rad(_uniform(count, ranges.turn_deg, draw))
    zoom = torch.exp(_uniform(count, ranges.zoom, draw))
    stretch = torch.exp(_uniform(count, ranges.zoom / 3, draw))
    flip = torch.where(torch.rand(count, generator=draw) < ranges.flip, -1.0, 1.0)
    moved = torch.stack([_uniform(count, ranges.shift_mm, draw) for _ in range(2)], 1)
    shift = centroids_mm(hu, pitch_mm).cpu() + moved
    half_mm = GRID_SIZE * GRID_PITCH_MM / 2
    wide_mm, high_mm = pitch_mm[:, 1].cpu() * width / 2, pitch_mm[:, 0].cpu() * height / 2
    across, down = half_mm * zoom / wide_mm, half_mm * zoom * stretch / high_mm
    cos, sin = torch.cos(angle), torch.sin(angle)
    first = torch.stack([across * cos * flip, -across * sin, shift[:, 0] / wide_mm], 1)
    second = torch.stack([down * sin * flip, down * cos, shift[:, 1] / high_mm], 1)
    theta = torch.stack([first, second], 1)
    return affine_grid(theta, [count, 1, GRID_SIZE, GRID_SIZE], align_corners=False).to(hu.device)


def _blurred(image: Tensor, ranges: Ranges, draw: torch.Generator) -> Tensor:
    amount = torch.rand(len(image), 1, 1, generator=draw) * 1.6 - 0.7  # below zero it sharpens
    amount = (amount * (torch.rand(len(image), 1, 1, generator=draw) < ranges.blur)).to(image.device)
    soft = avg_pool2d(image[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
    return image + amount * (soft - image)


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
    added = offset[:, None, None] + smooth + sigma * torch.lerp(grain, coarse, mix)
    changed = image * gain[:, None, None].to(image.device) + inside * added.to(image.device)
    return _clipped(changed, draw)


def _clipped(image: Tensor, draw: torch.Generator) -> Tensor:
    """Some archives hold bone cut off at a few hundred HU: one picture in seven is trained like that."""
    top = 200 + 300 * torch.rand(len(image), 1, 1, generator=draw)
    chosen = torch.rand(len(image), 1, 1, generator=draw) < 0.15
    return torch.where(chosen.to(image.device), torch.minimum(image, top.to(image.device)), image)
