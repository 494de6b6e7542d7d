"""Channels that a network can do without, taken out of its graph. What is left is tuned in `tuning`.

Only channels between two convolutions are cut (convolution with its batch norm folded in, ReLU, convolution): nothing
else sees them, so skips and heads keep their shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

KEPT_MULTIPLE = 4  # vector units like whole groups: what is left of a layer is rounded up to one


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
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    held = {weight.name: weight for weight in cut.graph.initializer}
    for chain in chains(model):
        before, bias, after = (numpy_helper.to_array(held[n]) for n in (chain.weight, chain.bias, chain.after))
        carried = np.sqrt((before.astype(np.float64) ** 2).sum((1, 2, 3)) + bias.astype(np.float64) ** 2)
        keep = _strongest(carried * np.sqrt((after.astype(np.float64) ** 2).sum((0, 2, 3))), share)
        for name, value in ((chain.weight, before[keep]), (chain.bias, bias[keep]), (chain.after, after[:, keep])):
            held[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
    del cut.graph.value_info[:]  # shapes of the inner layers are no longer those
    return cut


def _strongest(strength: NDArray[np.float64], share: float) -> NDArray[np.intp]:
    keep = max(KEPT_MULTIPLE, round(len(strength) * (1 - share)))
    keep = min(len(strength), -(-keep // KEPT_MULTIPLE) * KEPT_MULTIPLE)
    return np.sort(np.argsort(strength)[len(strength) - keep :])
