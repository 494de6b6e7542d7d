"""An exported ONNX graph as a PyTorch module with gradients: whatever is served can be explained and attacked.

Every node becomes a module of its own (attributions hook onto them). Known are the operators that TensorRT's parser
takes and our export writes; weights are the file's, quantised ones included. Statistics of batch normalisation are
already folded into them: a graph can be tuned (training.serving.tuning), not trained from the start.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional as fn

from contracts.errors import TriageError

Attributes: TypeAlias = Mapping[str, Any]
Operator: TypeAlias = Callable[[list[Any], Attributes], Any]
FLOATS = {onnx.TensorProto.FLOAT: torch.float32, onnx.TensorProto.FLOAT16: torch.float32}
DTYPES = {
    **FLOATS,  # gradients are taken in 32 bits, also where the graph says 16
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.BOOL: torch.bool,
}


class NotExplainable(TriageError):
    """A graph that PyTorch cannot follow; the sentence names file and operator."""


class Node(nn.Module):
    """One operator with its attributes."""

    def __init__(self, operator: Operator, attributes: Attributes) -> None:
        super().__init__()
        self._operator = operator
        self._attributes = attributes

    def forward(self, *inputs: Any) -> Any:
        """None stands for an input that is left out."""
        return self._operator(list(inputs), self._attributes)


class OnnxGraph(nn.Module):
    """HU (N, H, W), spacing (N, 2) → the graph's outputs in order, differentiable in HU."""

    def __init__(self, source: Path | onnx.ModelProto) -> None:
        """Read weights and nodes of a file, or of a graph that was read before.

        Raises:
            NotExplainable: no ONNX file, or an operator that is not known here.
        """
        super().__init__()
        model, file = (_loaded(source), str(source)) if isinstance(source, Path) else (source, source.graph.name)
        self.metadata = {entry.key: entry.value for entry in model.metadata_props}
        self.input_names = [one.name for one in model.graph.input]
        self.output_names = [one.name for one in model.graph.output]
        self.nodes = nn.ModuleList()
        self.wires: list[tuple[list[str], list[str]]] = []
        for node in model.graph.node:
            self.nodes.append(Node(_operator(node, file), _attributes(node)))
            self.wires.append((list(node.input), list(node.output)))
        self.kinds = [node.op_type for node in model.graph.node]
        self._constants = {one.name: _constant(one) for one in model.graph.initializer}
        self.forget_after_last_use()

    def forget_after_last_use(self) -> None:
        """Which tensors may go after which node; call it again after another choice of outputs."""
        self._needed = _needed(self.wires, self.output_names)
        self._last_use = _last_uses(self.wires, self.output_names)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Runs the nodes in the file's order, and forgets what nobody needs any more."""
        known: dict[str, Any] = {**self._constants, **dict(zip(self.input_names, inputs, strict=True))}
        for nth, (node, (wanted, made)) in enumerate(zip(self.nodes, self.wires, strict=True)):
            if not any(name in self._needed for name in made):
                continue
            answer = node(*(known[name] if name else None for name in wanted))
            answers = answer if isinstance(answer, list) else [answer]
            known.update(zip(made, answers, strict=False))
            for name in self._last_use.get(nth, ()):
                known.pop(name, None)
        return tuple(known[name] for name in self.output_names)


def _loaded(file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(file)
    except Exception as problem:  # protobuf raises errors of its own, and no common parent tells a damaged file
        raise NotExplainable(f"{file}: not an ONNX model ({type(problem).__name__})") from problem


def _operator(node: onnx.NodeProto, file: str) -> Operator:
    if node.op_type not in OPERATORS or node.domain not in {"", "ai.onnx"}:
        raise NotExplainable(f"{file}: the operator {node.domain}{node.op_type} cannot be followed by gradients here")
    return OPERATORS[node.op_type]


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}


def _constant(proto: onnx.TensorProto) -> Tensor:
    tensor = torch.from_numpy(numpy_helper.to_array(proto).copy())
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _needed(wires: list[tuple[list[str], list[str]]], outputs: list[str]) -> set[str]:
    needed = set(outputs)
    for wanted, made in reversed(wires):
        if needed.intersection(made):
            needed.update(wanted)
    return needed


def _last_uses(wires: list[tuple[list[str], list[str]]], outputs: list[str]) -> dict[int, list[str]]:
    last = {name: nth for nth, (wanted, _) in enumerate(wires) for name in wanted if name}
    freed: dict[int, list[str]] = {}
    for name, nth in last.items():
        if name not in outputs:
            freed.setdefault(nth, []).append(name)
    return freed


def _ints(value: Any) -> list[int]:
    return [int(one) for one in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def _axes(x: list[Any], a: Attributes) -> list[int] | None:
    if len(x) > 1 and x[1] is not None:
        return _ints(x[1])
    return _ints(a["axes"]) if "axes" in a else None


def _reduce(how: Callable[[Tensor, Any, bool], Tensor]) -> Operator:
    def reduced(x: list[Any], a: Attributes) -> Tensor:
        axes = _axes(x, a)
        return how(x[0], axes or list(range(x[0].ndim)), bool(a.get("keepdims", 1)))

    return reduced


def _padded(x: Tensor, a: Attributes, value: float) -> Tensor:
    """PyTorch pads before and after alike; ONNX may not."""
    if a.get("auto_pad", b"NOTSET") not in {b"NOTSET", b"VALID"}:
        raise NotExplainable("auto_pad is not followed here")
    pads = a.get("pads")
    if not pads or not any(pads):
        return x
    half = len(pads) // 2
    around = [p for axis in reversed(range(half)) for p in (pads[axis], pads[axis + half])]
    return fn.pad(x, around, value=value)


def _conv(x: list[Any], a: Attributes) -> Tensor:
    bias = x[2] if len(x) > 2 else None
    padded = _padded(x[0], a, 0.0)
    return fn.conv2d(padded, x[1], bias, a.get("strides", 1), 0, a.get("dilations", 1), a.get("group", 1))


def _average_pool(x: list[Any], a: Attributes) -> Tensor:
    pooled = fn.avg_pool2d(_padded(x[0], a, 0.0), a["kernel_shape"], a.get("strides", 1))
    if a.get("count_include_pad", 0) or not any(a.get("pads", [0])):
        return pooled
    counted = fn.avg_pool2d(_padded(torch.ones_like(x[0]), a, 0.0), a["kernel_shape"], a.get("strides", 1))
    return pooled / counted


def _max_pool(x: list[Any], a: Attributes) -> Tensor:
    return fn.max_pool2d(_padded(x[0], a, -torch.inf), a["kernel_shape"], a.get("strides", 1), 0, a.get("dilations", 1))


def _slice(x: list[Any], _a: Attributes) -> Any:
    starts, ends = _ints(x[1]), _ints(x[2])
    axes = _ints(x[3]) if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = _ints(x[4]) if len(x) > 4 and x[4] is not None else [1] * len(starts)
    out = x[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = out.shape[axis]
        chosen = torch.arange(size)[slice(start, end, step)] if step > 0 else _backwards(size, start, end, step)
        out = out.index_select(axis, chosen)
    return out


def _backwards(size: int, start: int, end: int, step: int) -> Tensor:
    return torch.tensor(list(range(size))[slice(start, end if end >= -size else None, step)], dtype=torch.int64)


def _resize(x: list[Any], a: Attributes) -> Tensor:
    sizes = _ints(x[3])[2:] if len(x) > 3 and x[3] is not None else None
    scales = None if sizes else [float(one) for one in x[2].tolist()[2:]]
    mode = a.get("mode", b"nearest").decode()
    how = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    if mode == "nearest":
        return fn.interpolate(x[0], sizes, scales, "nearest")
    if mode == "linear" and how in {"half_pixel", "pytorch_half_pixel", "align_corners"}:
        return fn.interpolate(x[0], sizes, scales, "bilinear", align_corners=how == "align_corners")
    raise NotExplainable(f"Resize with {mode}, {how} is not followed here")


def _depth_to_space(x: list[Any], a: Attributes) -> Tensor:
    size, (n, c, h, w) = a["blocksize"], x[0].shape
    if a.get("mode", b"DCR") == b"CRD":
        return fn.pixel_shuffle(x[0], size)
    apart = x[0].reshape(n, size, size, c // size**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return apart.reshape(n, c // size**2, h * size, w * size)


def _space_to_depth(x: list[Any], a: Attributes) -> Tensor:
    size, (n, c, h, w) = a["blocksize"], x[0].shape
    apart = x[0].reshape(n, c, h // size, size, w // size, size).permute(0, 3, 5, 1, 2, 4)
    return apart.reshape(n, c * size**2, h // size, w // size)


def _gemm(x: list[Any], a: Attributes) -> Tensor:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 else product


def _reshape(x: list[Any], a: Attributes) -> Tensor:
    shape = _ints(x[1])
    if not a.get("allowzero"):
        shape = [x[0].shape[nth] if size == 0 else size for nth, size in enumerate(shape)]
    return x[0].reshape(shape)


def _split(x: list[Any], a: Attributes) -> list[Tensor]:
    axis = a.get("axis", 0)
    if len(x) > 1 and x[1] is not None:
        return list(torch.split(x[0], _ints(x[1]), axis))
    return list(torch.chunk(x[0], a["num_outputs"], axis))


def _shape(x: list[Any], a: Attributes) -> Tensor:
    return torch.tensor(list(x[0].shape)[a.get("start", 0) : a.get("end")], dtype=torch.int64)


def _clip(x: list[Any], a: Attributes) -> Tensor:
    low = x[1] if len(x) > 1 and x[1] is not None else a.get("min")
    high = x[2] if len(x) > 2 and x[2] is not None else a.get("max")
    return torch.clamp(x[0], low if low is None else float(low), high if high is None else float(high))


def _squeeze(x: list[Any], a: Attributes) -> Tensor:
    axes = _axes(x, a)
    return x[0].squeeze() if axes is None else x[0].squeeze(tuple(axes))


def _unsqueeze(x: list[Any], a: Attributes) -> Tensor:
    axes = _axes(x, a) or []
    rank = x[0].ndim + len(axes)
    out = x[0]
    for axis in sorted(axis % rank for axis in axes):
        out = out.unsqueeze(axis)
    return out


def _divide(x: list[Any], _a: Attributes) -> Tensor:
    if x[0].is_floating_point() or x[1].is_floating_point():
        return x[0] / x[1]
    return torch.div(x[0], x[1], rounding_mode="trunc")


def _gather(x: list[Any], a: Attributes) -> Tensor:
    axis, index = a.get("axis", 0), x[1]
    flat = x[0].index_select(axis, index.reshape(-1) % x[0].shape[axis])
    return flat.reshape(*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :])


def _per_axis(value: Tensor, like: Tensor, axis: int) -> Tensor:
    if value.numel() == 1:
        return value.reshape(())
    return value.reshape([-1 if nth == axis else 1 for nth in range(like.ndim)])


def _dequantise(x: list[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", 1)
    zero = _per_axis(x[2].float(), x[0], axis) if len(x) > 2 and x[2] is not None else 0.0
    return (x[0].float() - zero) * _per_axis(x[1], x[0], axis)


class _Rounded(torch.autograd.Function):
    """Rounding with the gradient of the identity."""

    @staticmethod
    def forward(_ctx: Any, value: Tensor) -> Tensor:
        return torch.round(value)

    @staticmethod
    def backward(_ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def _quantise(x: list[Any], a: Attributes) -> Tensor:
    """Kept as floating point of whole numbers, so that gradients pass."""
    zero = x[2] if len(x) > 2 and x[2] is not None else torch.tensor(0, dtype=torch.uint8)
    bounds = torch.iinfo(zero.dtype)
    axis = a.get("axis", 1)
    steps = _Rounded.apply(x[0] / _per_axis(x[1], x[0], axis))  # type: ignore[no-untyped-call]  # torch's own
    stepped = steps + _per_axis(zero.float(), x[0], axis)
    return torch.clamp(stepped, bounds.min, bounds.max)


OPERATORS: dict[str, Operator] = {
    "Abs": lambda x, _: torch.abs(x[0]),
    "Add": lambda x, _: x[0] + x[1],
    "AveragePool": _average_pool,
    "Cast": lambda x, a: x[0].to(DTYPES[a["to"]]),
    "Clip": _clip,
    "Concat": lambda x, a: torch.cat(x, a["axis"]),
    "Constant": lambda _, a: _constant(a["value"]),
    "ConstantOfShape": lambda x, a: torch.full(_ints(x[0]), float(_constant(a["value"])[0]) if "value" in a else 0.0),
    "Conv": _conv,
    "DepthToSpace": _depth_to_space,
    "DequantizeLinear": _dequantise,
    "Div": _divide,
    "Exp": lambda x, _: torch.exp(x[0]),
    "Expand": lambda x, _: x[0] * torch.ones(_ints(x[1]), dtype=x[0].dtype),
    "Flatten": lambda x, a: x[0].flatten(a.get("axis", 1)),
    "Floor": lambda x, _: torch.floor(x[0]),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x, _: x[0].mean((2, 3), keepdim=True),
    "GlobalMaxPool": lambda x, _: x[0].amax((2, 3), keepdim=True),
    "HardSigmoid": lambda x, a: torch.clamp(a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5), 0, 1),
    "HardSwish": lambda x, _: fn.hardswish(x[0]),
    "Identity": lambda x, _: x[0],
    "LeakyRelu": lambda x, a: fn.leaky_relu(x[0], a.get("alpha", 0.01)),
    "Log": lambda x, _: torch.log(x[0]),
    "MatMul": lambda x, _: torch.matmul(x[0], x[1]),
    "Max": lambda x, _: functools.reduce(torch.maximum, x),
    "MaxPool": _max_pool,
    "Min": lambda x, _: functools.reduce(torch.minimum, x),
    "Mul": lambda x, _: x[0] * x[1],
    "Neg": lambda x, _: -x[0],
    "Pad": lambda x, _: _padded(x[0], {"pads": _ints(x[1])}, float(x[2]) if len(x) > 2 and x[2] is not None else 0.0),
    "Pow": lambda x, _: torch.pow(x[0], x[1]),
    "QuantizeLinear": _quantise,
    "Range": lambda x, _: torch.arange(x[0].item(), x[1].item(), x[2].item(), dtype=x[0].dtype),
    "Reciprocal": lambda x, _: 1 / x[0],
    "ReduceMax": _reduce(lambda t, axes, keep: t.amax(axes, keepdim=keep)),
    "ReduceMean": _reduce(lambda t, axes, keep: t.mean(axes, keepdim=keep)),
    "ReduceMin": _reduce(lambda t, axes, keep: t.amin(axes, keepdim=keep)),
    "ReduceSum": _reduce(lambda t, axes, keep: t.sum(axes, keepdim=keep)),
    "Relu": lambda x, _: torch.relu(x[0]),
    "Reshape": _reshape,
    "Resize": _resize,
    "Shape": _shape,
    "Sigmoid": lambda x, _: torch.sigmoid(x[0]),
    "Slice": _slice,
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": lambda x, _: torch.sqrt(x[0]),
    "Squeeze": _squeeze,
    "Sub": lambda x, _: x[0] - x[1],
    "Tanh": lambda x, _: torch.tanh(x[0]),
    "Transpose": lambda x, a: x[0].permute(a["perm"]),
    "Unsqueeze": _unsqueeze,
    "Where": lambda x, _: torch.where(x[0], x[1], x[2]),
}
