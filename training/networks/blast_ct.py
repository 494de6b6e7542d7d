"""BLAST-CT's network (biomedia-mira/blast-ct, Apache-2.0), so that its published weights can be asked and imported.

The DeepMedic layout, as the keys and shapes of its state dict tell it: three paths that see the volume every fifth,
third and single millimetre, eight valid 3³ convolutions each, joined by three 1³ convolutions. Before every convolution
stand batch norm and a PReLU; where a convolution keeps its width, the input passes around it.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

SCALES = (5, 3, 1)
WIDTHS = (30, 30, 40, 40, 40, 40, 50, 50)
JOINED = (250, 250)
CLASSES = ("background", "intraparenchymal", "extra_axial", "oedema", "intraventricular")
INPUT_SIDE, OUTPUT_SIDE = 110, 30  # mm; other sizes that differ by whole fives of the coarsest path work too


class Before(nn.Module):
    """Batch norm, PReLU, valid convolution, and the cropped input beside it."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        """``side`` of the cubic kernel."""
        super().__init__()
        self.bn = nn.BatchNorm3d(inputs)
        self.conv = nn.Conv3d(inputs, outputs, side, bias=False)
        self.prelu = nn.PReLU()
        self._passes, self._lost = inputs == outputs, side // 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, s, s, s) → (N, outputs, s', s', s'), s' = s − side + 1."""
        out: Tensor = self.conv(self.prelu(self.bn(x)))
        return out + cropped(x, tuple(out.shape[2:])) if self._passes else out


class Every(nn.Module):
    """One path: every ``scale``-th voxel, convolved, and repeated to full size. Its numbered places are the file's."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        widths = (1, *WIDTHS)
        blocks = [Before(a, b, 3) for a, b in pairwise(widths)]
        self.path = nn.Sequential(nn.Identity(), *blocks)  # the file counts the downsampling as place 0
        self.scale = scale

    def forward(self, x: Tensor, side: int) -> Tensor:
        """The middle (side³) of what this path sees."""
        coarse = -(-side // self.scale)
        seen = cropped(x, ((coarse + 2 * len(WIDTHS)) * self.scale,) * 3)
        sparse = seen[:, :, *(slice(self.scale // 2, None, self.scale),) * 3]
        wide = interpolate(self.path(sparse), scale_factor=float(self.scale), mode="nearest")
        return cropped(wide, (side,) * 3)


class BlastCt(nn.Module):
    """HU mapped from −15…100 to −1…1 at 1 mm (N, 1, s, s, s) → logits (N, 5, s − 80, s − 80, s − 80)."""

    def __init__(self) -> None:
        super().__init__()
        for nth, scale in enumerate(SCALES):
            self.add_module(f"path{(scale,) * 3}{nth}", Every(scale))
        widths = (WIDTHS[-1] * len(SCALES), *JOINED, len(CLASSES))
        self.fully_connected = nn.Sequential(*(Before(a, b, 1) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """Cubes only.

        Raises:
            ValueError: the side is none that the coarsest path gives whole voxels for.
        """
        side = int(x.shape[2]) - (INPUT_SIDE - OUTPUT_SIDE)
        if side <= 0 or side % SCALES[0]:
            raise ValueError(f"a block of {int(x.shape[2])} mm cannot be asked: 85, 90, 95 … can")
        paths = [getattr(self, f"path{(scale,) * 3}{nth}") for nth, scale in enumerate(SCALES)]
        answer: Tensor = self.fully_connected(torch.cat([path(x, side) for path in paths], 1))
        return answer


class BlastCtChances(nn.Module):
    """What is imported: the chance of each class instead of logits."""

    def __init__(self, network: BlastCt) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, 110, 110, 110) → (N, 5, 30, 30, 30), each voxel's five sum to 1."""
        return torch.softmax(self.network(x), 1)


def cropped(x: Tensor, sides: tuple[int, ...]) -> Tensor:
    """The middle of the last three axes; of an even surplus half on each side, of an odd one more in front."""
    cuts = [slice(c // 2 - s // 2, c // 2 - s // 2 + s) for c, s in zip(x.shape[2:], sides, strict=True)]
    return x[:, :, *cuts]


def load(weights: Path) -> BlastCt:
    """The network with the weights of a plain state dict; nothing of the file but tensors is read.

    Raises:
        OSError: there is no such file.
        RuntimeError, ValueError, KeyError: the file holds something else.
    """
    state = torch.load(weights, weights_only=True, map_location="cpu")
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{weights} holds no plain state dict")
    network = BlastCt()
    network.load_state_dict(state)  # every key and shape, or RuntimeError
    return network.eval()
