"""A pruned graph is tuned until it answers as the original did: its own weights, changed where they stand in the graph.

The original's answers are what is learned, so no labels are needed and any model that takes HU slices can be tuned,
whoever trained it. Batch normalisation is folded into the convolutions before and stays so. Nothing of the graph is
executed but its operators (training.explaining.onnx_graph).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy
from torch.optim.lr_scheduler import OneCycleLR

from training.explaining.onnx_graph import OnnxGraph
from training.serving.session_in import answers, session

LEARNED = ("Conv", "Gemm")  # whose weights learn; constants of the preprocessing stay
BATCH = 8
HIGHEST_RATE = 5e-4  # four times as much unlearns
OVERLAP_SMOOTH = 20.0  # pixels: an empty map is no reason to move


class Tunable(OnnxGraph):
    """The graph with its weights as parameters."""

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__(model)
        names = {name for node in model.graph.node if node.op_type in LEARNED for name in node.input[1:]}
        self._learned = {name: nn.Parameter(self._constants[name]) for name in names & set(self._constants)}
        self._constants.update(self._learned)

    def parameters(self, recurse: bool = True) -> Any:  # noqa: ARG002, FBT001, FBT002  # torch's signature
        """By name they are the graph's, with dots that a module's may not have."""
        return iter(self._learned.values())

    def written(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """A copy of ``model`` with these weights."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        for held in copy.graph.initializer:
            if held.name in self._learned:
                value = self._learned[held.name].detach().numpy()
                held.CopyFrom(numpy_helper.from_array(value, held.name))
        return copy


def tuned(
    model: onnx.ModelProto,
    original: onnx.ModelProto,
    feeds: Sequence[dict[str, NDArray[Any]]],
    steps: int,
    seed: int = 0,
) -> onnx.ModelProto:
    """``model`` after so many steps on these slices (one size, as drawn), towards the original's answers."""
    if not steps:
        return model
    running = session(original.SerializeToString())
    told = [answers(running, feed) for feed in feeds]
    torch.set_flush_denormal(True)  # denormals make some layers a hundred times slower
    network = Tunable(model)
    optimiser = torch.optim.Adam(network.parameters(), HIGHEST_RATE)
    schedule = OneCycleLR(optimiser, HIGHEST_RATE, total_steps=steps, pct_start=0.2)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.choice(len(feeds), min(BATCH, len(feeds)), replace=False)
        loss = torch.zeros(())
        given = (_stacked([feeds[row][name] for row in rows]) for name in network.input_names)
        for name, found in zip(network.output_names, network(*given), strict=True):
            loss = loss + _apart(found, _stacked([told[row][name] for row in rows]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # untyped in torch
        optimiser.step()
        schedule.step()
    return network.written(model)


def _stacked(values: list[NDArray[Any]]) -> Tensor:
    return torch.from_numpy(np.concatenate(values))


def _apart(found: Tensor, taught: Tensor) -> Tensor:
    """Cross-entropy with the original's probabilities; of maps, the overlap too: lesions are few pixels."""
    loss = binary_cross_entropy(found, taught)
    if found.ndim < 4:
        return loss
    both, each = (found * taught).sum((0, 2, 3)), (found**2 + taught**2).sum((0, 2, 3))
    overlap: Tensor = 1 - ((2 * both + OVERLAP_SMOOTH) / (each + OVERLAP_SMOOTH)).mean()
    return loss + overlap
