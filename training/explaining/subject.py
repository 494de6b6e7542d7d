"""A network that can be explained: logits of the six labels, segmentation, and the layer that Grad-CAM looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training.evaluation.grid import Grid
from training.explaining.onnx_graph import NotExplainable, OnnxGraph
from training.networks.student import Served, Trunk
from training.preprocess import GRID_PITCH_MM, GRID_SIZE

EXAMPLE_SIDE = 256  # a matrix to run once, to see which layer is how coarse
LAYER_SIDE = 36  # Grad-CAM's layer: coarse enough to mean something, fine enough to point at a bleed (6 mm a sample)


@dataclass(frozen=True, eq=False)
class Subject:
    """network: HU (N, H, W), spacing (N, 2) → logits (N, 6). layer: one of its modules, (N, c, s, s)."""

    network: nn.Module
    layer: nn.Module
    grid: Grid


class _Logits(nn.Module):
    """The graph up to its last sigmoid: probabilities near 1 have no gradient left."""

    def __init__(self, graph: OnnxGraph) -> None:
        super().__init__()
        self.graph = graph
        maker = next(nth for nth, (_, made) in enumerate(graph.wires) if "PROBABILITIES" in made)
        self._sigmoid = graph.kinds[maker] == "Sigmoid"
        graph.output_names = [graph.wires[maker][0][0] if self._sigmoid else "PROBABILITIES"]
        graph.forget_after_last_use()

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> Tensor:
        (answer,) = self.graph(hu, spacing_mm)
        return answer if self._sigmoid else torch.logit(answer, eps=1e-6)


class _ServedLogits(nn.Module):
    """The trained network before it is exported."""

    def __init__(self, served: Served) -> None:
        super().__init__()
        self.served = served

    def forward(self, hu: Tensor, spacing_mm: Tensor) -> Tensor:
        logits, _ = self.served.trunk(self.served.grid(hu, spacing_mm))
        return logits * self.served.scale + self.served.offset


def subject_of_onnx(file: Path) -> Subject:
    """Any exported model.

    Raises:
        NotExplainable: not a graph of ours, or an operator without a gradient here.
    """
    graph = OnnxGraph(file)
    wanted = (["HU", "PIXEL_SPACING"], ["PROBABILITIES", "SEGMENTATION"])
    if (graph.input_names, graph.output_names) != wanted:
        raise NotExplainable(f"{file}: its tensors are {graph.input_names} → {graph.output_names}, not {wanted}")
    try:
        grid = Grid(int(graph.metadata["grid_size"]), float(graph.metadata["grid_pitch_mm"]))
    except (KeyError, ValueError) as problem:
        raise NotExplainable(f"{file}: its metadata do not say grid_size and grid_pitch_mm") from problem
    logits = _Logits(graph).eval()
    return Subject(logits, _layer(graph.nodes, logits), grid)


def subject_of_checkpoint(file: Path) -> Subject:
    """A checkpoint of `triage train`.

    Raises:
        NotExplainable: not a checkpoint, or of another network.
    """
    served = Served(_trunk(file)).eval()
    logits = _ServedLogits(served)
    return Subject(logits, _layer(list(served.trunk.modules()), logits), Grid(GRID_SIZE, GRID_PITCH_MM))


def _trunk(file: Path) -> Trunk:
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as problem:  # pickle, zip and torch errors alike: it is no checkpoint
        raise NotExplainable(f"{file}: not a checkpoint of PyTorch tensors ({type(problem).__name__})") from problem
    weights = _weights(state)
    try:
        widths = [weights["stem.0.0.weight"].shape[0]]
        widths += [weights[f"down.{nth}.0.0.weight"].shape[0] for nth in range(_levels(weights))]
        trunk = Trunk(tuple(widths))
        trunk.load_state_dict(weights)
    except (KeyError, RuntimeError) as problem:
        raise NotExplainable(f"{file}: holds no weights of the served network") from problem
    return trunk.eval()


def _weights(state: object) -> dict[str, Tensor]:
    """The averaged weights of our loop, or of a Lightning module whose network is called trunk."""
    if not isinstance(state, dict):
        return {}
    if "average" in state:
        return dict(state["average"])
    told = state.get("state_dict", state)
    return {name.rpartition("trunk.")[2]: value for name, value in told.items() if isinstance(value, Tensor)}


def _levels(weights: dict[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith("down.")})


def _layer(modules: nn.ModuleList | list[nn.Module], network: nn.Module) -> nn.Module:
    """The last module whose answer has LAYER_SIDE samples a side, or the nearest to it that there is."""
    sides: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, _inputs: object, answer: object) -> None:
        if isinstance(answer, Tensor) and answer.ndim == 4 and answer.shape[1] > 6 and answer.shape[2] > 1:
            sides.append((module, answer.shape[2]))

    hooks = [module.register_forward_hook(note) for module in modules if not isinstance(module, nn.ModuleList)]
    with torch.no_grad():
        network(torch.full((1, EXAMPLE_SIDE, EXAMPLE_SIDE), 30.0), torch.full((1, 2), 0.9))
    for hook in hooks:
        hook.remove()
    best = min(abs(side - LAYER_SIDE) for _, side in sides)
    return [module for module, side in sides if abs(side - LAYER_SIDE) == best][-1]
