"""From native HU to the served grid, as layers: what is trained is what is served.

No shape depends on data and no operator is foreign to TensorRT: resampling is two matrix products whose weights are
computed from pixel spacing and matrix size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pixel_unshuffle

GRID_SIZE = 144  # samples per side: 72, 36, 18, 9 after the poolings
GRID_PITCH_MM = 1.6  # 230 mm field of view: any adult head
AIR_HU = -1000.0
LOWEST_HU, HIGHEST_HU = -1024.0, 3071.0
BODY_FROM_HU, BODY_FULL_HU = -500.0, -300.0  # what counts as patient when the head is centred
FARTHEST_MM = 60.0  # a centroid farther from the image centre than this is not trusted
# Windows (low, high) in HU: blood against brain, blood alone, subdural, soft tissue with fat, bone.
WINDOWS_HU = ((-15.0, 100.0), (25.0, 85.0), (-120.0, 300.0), (100.0, 1500.0))
PLANES = 4 * len(WINDOWS_HU) + 2  # each window unshuffled, and the left–right difference, fine and coarse


class ServedGrid(nn.Module):
    """HU (N, H, W) and spacing (N, 2) mm → HU (N, S, S), centred on the patient, air outside the image."""

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> Tensor:
        """Anti-aliased by a triangle as wide as the coarser of the two grids."""
        above_air = hu.float().clamp(LOWEST_HU, HIGHEST_HU) - AIR_HU
        body = ((above_air + (AIR_HU - BODY_FROM_HU)) / (BODY_FULL_HU - BODY_FROM_HU)).clamp(0, 1)
        rows = _weights(body.mean(2), spacing_mm[:, 0:1])
        columns = _weights(body.mean(1), spacing_mm[:, 1:2])
        return torch.bmm(torch.bmm(rows, above_air), columns.transpose(1, 2)) + AIR_HU


def _weights(profile: Tensor, spacing_mm: Tensor) -> Tensor:
    """(N, S, L) weights of L pixels in S samples, from the body's profile (N, L) along that axis."""
    pixel_mm = torch.arange(profile.shape[1], dtype=torch.float32, device=profile.device) * spacing_mm
    grid_mm = (
        torch.arange(GRID_SIZE, dtype=torch.float32, device=profile.device) - (GRID_SIZE - 1) / 2
    ) * GRID_PITCH_MM
    middle = pixel_mm[:, -1:] / 2
    mass = profile.sum(1, keepdim=True)
    centroid = ((profile * pixel_mm).sum(1, keepdim=True) + 1e-3 * middle) / (mass + 1e-3)
    centre = middle + (centroid - middle).clamp(-FARTHEST_MM, FARTHEST_MM)
    reach = spacing_mm.clamp(min=GRID_PITCH_MM).unsqueeze(2)
    away = (grid_mm.reshape(1, -1, 1) + centre.unsqueeze(2)) - pixel_mm.unsqueeze(1)
    triangle = (1 - away.abs() / reach).clamp(min=0)
    whole = reach / spacing_mm.unsqueeze(2)  # what the weights sum to well inside the image
    return triangle / torch.maximum(triangle.sum(2, keepdim=True), 0.3 * whole)


class Planes(nn.Module):
    """HU (N, S, S) → (N, PLANES, S/2, S/2): windows at half resolution without loss, and the left–right difference."""

    mirror: Tensor

    def __init__(self) -> None:
        """The mirror is a constant matrix: a product, where a negative stride would not run everywhere."""
        super().__init__()
        self.register_buffer("mirror", torch.eye(GRID_SIZE // 2).flip(0), persistent=False)

    def forward(self, hu: Tensor) -> Tensor:
        """All planes lie within −1…1."""
        image = hu.unsqueeze(1)
        windows = torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in WINDOWS_HU], 1)
        half = avg_pool2d(windows[:, 0:1], 2)
        fine = half - torch.matmul(half, self.mirror)
        coarse = avg_pool2d(fine, 7, stride=1, padding=3)
        return torch.cat([pixel_unshuffle(windows, 2), fine, 2 * coarse], 1)
