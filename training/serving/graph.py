"""Is an ONNX graph what its declaration says, and can both engines run it? Pure: a graph in, sentences out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from contracts.declaration import Declaration, Tensor

# Operators of TensorRT 10's ONNX parser that take static or shape-only arguments; none whose output shape is data.
ALLOWED = frozenset(
    [
        "Abs",
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "ConvTranspose",
        "DepthToSpace",
        "Div",
        "Erf",
        "Exp",
        "Expand",
        "Flatten",
        "Gather",
        "Gemm",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "InstanceNormalization",
        "LeakyRelu",
        "Log",
        "MatMul",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "PRelu",
        "Pad",
        "Pow",
        "Range",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Resize",
        "Shape",
        "Sigmoid",
        "Slice",
        "Softmax",
        "SpaceToDepth",
        "Split",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
        "Where",
        "QuantizeLinear",
        "DequantizeLinear",
    ]
)
TYPES: dict[str, int] = {
    "FP16": onnx.TensorProto.FLOAT16,
    "FP32": onnx.TensorProto.FLOAT,
    "INT32": onnx.TensorProto.INT32,
    "INT64": onnx.TensorProto.INT64,
    "UINT8": onnx.TensorProto.UINT8,
}
# INT8 for weights and zero points of quantised graphs, BOOL for what Where chooses by.
INNER_TYPES = frozenset({*TYPES.values(), onnx.TensorProto.INT8, onnx.TensorProto.BOOL}) - {onnx.TensorProto.UINT8}
OPSETS = range(13, 21)  # 13: QuantizeLinear by channel; 20: what TensorRT 10 parses
_PLAIN = {"", "ai.onnx"}


def problems(model: onnx.ModelProto, declared: Declaration) -> list[str]:
    """Every way in which the graph is not what was declared, or not what both engines run; empty: none."""
    return [
        *_tensor_problems("input", declared.inputs, _real_inputs(model), declared.batched),
        *_tensor_problems("output", declared.outputs, list(model.graph.output), declared.batched),
        *operator_problems(model),
        *_metadata_problems({p.key: p.value for p in model.metadata_props}, declared.parameters),
    ]


def operator_problems(model: onnx.ModelProto) -> list[str]:
    """What TensorRT would not take."""
    found = []
    nodes = list(_nodes(model.graph))
    foreign = sorted({f"{n.domain}.{n.op_type}" for n in nodes if n.domain not in _PLAIN})
    unknown = sorted({n.op_type for n in nodes if n.domain in _PLAIN} - ALLOWED)
    if foreign:
        found.append(f"operators of another domain: {', '.join(foreign)}")
    if unknown:
        found.append(f"operators outside of what TensorRT builds with shapes of its own: {', '.join(unknown)}")
    version = next((o.version for o in model.opset_import if o.domain in _PLAIN), 0)
    if version not in OPSETS:
        found.append(f"opset {version} is not within {OPSETS.start}…{OPSETS.stop - 1}")
    kinds = {w.data_type for w in model.graph.initializer}
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    except onnx.shape_inference.InferenceError as problem:
        return [*found, f"its types contradict each other: {' '.join(str(problem).split())[:200]}"]
    kinds |= {value.type.tensor_type.elem_type for value in inferred}
    alien = sorted(onnx.TensorProto.DataType.Name(kind) for kind in kinds - INNER_TYPES if kind)
    if alien:
        found.append(f"element types TensorRT does not compute with: {', '.join(alien)}")
    if any(w.external_data for w in model.graph.initializer):
        found.append("weights lie outside the file")
    return found


def tensors_of(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[int, list[int]]]:
    """Name → element type and sizes (−1: any)."""
    told = {}
    for value in values:
        tensor = value.type.tensor_type
        told[value.name] = (
            tensor.elem_type,
            [d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim],
        )
    return told


def _real_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Older files list their weights as inputs too."""
    weights = {w.name for w in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def _nodes(graph: onnx.GraphProto) -> Iterable[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _nodes(attribute.g)


def _tensor_problems(
    kind: str,
    declared: tuple[Tensor, ...],
    values: list[onnx.ValueInfoProto],
    batched: bool,  # noqa: FBT001  # a fact of the declaration
) -> list[str]:
    real, wanted = tensors_of(values), {tensor.spec.name: tensor.spec for tensor in declared}
    if set(real) != set(wanted):
        return [f"{kind}s are {', '.join(real) or 'none'}; declared are {', '.join(wanted)}"]
    found = []
    for name, spec in wanted.items():
        element, sizes = real[name]
        if element != TYPES[spec.datatype]:
            found.append(f"{kind} {name} is {onnx.TensorProto.DataType.Name(element)}, declared is {spec.datatype}")
        dims = [-1, *spec.dims] if batched else list(spec.dims)
        if len(sizes) != len(dims) or any(d != s for d, s in zip(dims, sizes, strict=True) if d != -1 and s != -1):
            found.append(f"{kind} {name} has the shape {sizes}, declared is {dims}")
        elif kind == "input" and any(d == -1 and s != -1 for d, s in zip(dims, sizes, strict=True)):
            found.append(f"input {name} has the fixed shape {sizes}, declared is {dims}")
    return found


def _metadata_problems(told: Mapping[str, str], parameters: Mapping[str, str]) -> list[str]:
    """A graph of ours carries its parameters; a foreign graph carries what it likes, but may not contradict."""
    return [
        f"metadata {key} is {told[key]!r}, declared is {value!r}"
        for key, value in parameters.items()
        if key in told and told[key] != value
    ]
