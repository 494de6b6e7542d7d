"""Channels that a network can do without: chosen and masked in PyTorch, taken out of the exported graph.

Only channels between two convolutions are cut (convolution, batch norm, ReLU, convolution): nothing else sees them, so
skips and heads keep their shapes. Masking (torch.nn.utils.prune) lets a network be tuned further while they are gone;
`compacted` then makes the graph smaller without changing an answer. `thinned` does both to a graph alone, untuned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn.utils import prune

KEPT_MULTIPLE = 4  # vector units like whole groups: what is left of a layer is rounded up to one
DEAD = 1e-12  # norm of a masked channel


@dataclass(frozen=True)
class Chain:
    """Names of an inner layer's weights in a graph: of the convolution before, and of the one after."""

    weight: str
    bias: str
    after: str


def chains(model: onnx.ModelProto) -> Iterator[Chain]:
    """Every Conv → ReLU → Conv whose middle nothing else reads."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    shown = {value.name for value in model.graph.output}
    weights = {weight.name for weight in model.graph.initializer}
    for conv in (node for node in model.graph.node if _plain_conv(node)):
        relu = _only_reader(readers, conv.output[0], shown)
        after = relu and relu.op_type == "Relu" and _only_reader(readers, relu.output[0], shown)
        if after and _plain_conv(after) and {*conv.input[1:], after.input[1]} <= weights and len(conv.input) == 3:
            yield Chain(conv.input[1], conv.input[2], after.input[1])


def _plain_conv(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and all(a.i == 1 for a in node.attribute if a.name == "group")


def _only_reader(readers: dict[str, list[onnx.NodeProto]], name: str, shown: set[str]) -> onnx.NodeProto | None:
    found = readers.get(name, [])
    return found[0] if len(found) == 1 and name not in shown else None


def thinned(model: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """The graph without the weakest ``share`` of every inner layer's channels (by the norms of what they carry)."""
    return _cut(model, lambda strength: _strongest(strength, share))


def compacted(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph without channels that are all zero: the same answers."""
    return _cut(model, lambda strength: np.flatnonzero(strength > DEAD))


def _strongest(strength: NDArray[np.float64], share: float) -> NDArray[np.intp]:
    keep = max(KEPT_MULTIPLE, round(len(strength) * (1 - share)))
    keep = min(len(strength), -(-keep // KEPT_MULTIPLE) * KEPT_MULTIPLE)
    return np.sort(np.argsort(strength)[len(strength) - keep :])


def _cut(model: onnx.ModelProto, chosen: Callable[[NDArray[np.float64]], NDArray[np.intp]]) -> onnx.ModelProto:
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    held = {weight.name: weight for weight in cut.graph.initializer}
    for chain in chains(model):
        before, bias, after = (numpy_helper.to_array(held[n]) for n in (chain.weight, chain.bias, chain.after))
        carried = np.sqrt((before.astype(np.float64) ** 2).sum((1, 2, 3)) + bias.astype(np.float64) ** 2)
        keep = chosen(carried * np.sqrt((after.astype(np.float64) ** 2).sum((0, 2, 3))))
        keep = keep if len(keep) else np.arange(1)  # a layer without channels is no layer
        for name, value in ((chain.weight, before[keep]), (chain.bias, bias[keep]), (chain.after, after[:, keep])):
            held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    del cut.graph.value_info[:]  # shapes of the inner layers are no longer those
    return cut


def pruned(
    network: nn.Module, example: Tensor, share: float, fine_tune: Callable[[nn.Module], None] = lambda _network: None
) -> nn.Module:
    """The network with the weakest ``share`` of its inner channels masked, tuned by ``fine_tune`` while they are gone.

    The masks are made part of the weights in the end; `compacted` finds the zeros in the exported graph.
    """
    masked: list[tuple[nn.Module, str]] = []
    for conv, norm in _inner_layers(network, example):
        prune.ln_structured(conv, "weight", share, n=2, dim=0)  # type: ignore[no-untyped-call]  # untyped in torch
        alive = conv.weight_mask.flatten(1).amax(1)  # type: ignore[operator]  # made by the line above
        for name in ("weight", "bias"):
            prune.custom_from_mask(norm, name, alive)  # type: ignore[no-untyped-call]
        masked += [(conv, "weight"), (norm, "weight"), (norm, "bias")]
    fine_tune(network)
    for module, name in masked:
        prune.remove(module, name)  # type: ignore[no-untyped-call]
    return network


def _inner_layers(network: nn.Module, example: Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions whose output goes through batch norm and ReLU, modules all, into another convolution."""
    calls: list[tuple[nn.Module, int, int]] = []
    alive: list[Any] = []  # ids are only unique while their owners live

    def seen(module: nn.Module, given: Any, told: Any) -> None:
        alive.extend((given, told))
        calls.append((module, id(given[0]), id(told)))

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU)
    hooks = [module.register_forward_hook(seen) for module in network.modules() if isinstance(module, kinds)]
    try:
        with torch.no_grad():
            network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for at in range(len(calls) - 3):
        (conv, _, a), (norm, b, c), (relu, d, e), (after, f, _) = calls[at : at + 4]
        typed = isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU)
        if typed and isinstance(after, nn.Conv2d) and (a, c, e) == (b, d, f):
            found.append((conv, norm))
    return found  # type: ignore[return-value]  # checked above, one by one
