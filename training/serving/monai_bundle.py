"""What a MONAI bundle says of itself, read as data. Its `$` expressions are Python code: they are never evaluated.

Of the configuration only one thing is used, and only where there are weights without a program: `network_def`, whose
class must be on our list and whose arguments must be plain JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from contracts.declaration import Declaration, Tensor
from contracts.errors import ModelRefused
from contracts.tensors import TensorSpec

METADATA, PROGRAM, WEIGHTS = "configs/metadata.json", "models/model.ts", "models/model.pt"
CONFIGURATIONS = ("configs/inference.json", "configs/train.json")
LARGEST_BYTES = 4 * 1024**2  # a configuration, not a hiding place
NETWORKS = frozenset(
    {
        "UNet",
        "BasicUNet",
        "AttentionUnet",
        "SegResNet",
        "VNet",
        "DynUNet",
        "UNETR",
        "SwinUNETR",
        "DenseNet121",
        "ResNet",
    }
)
DATATYPES = {"float32": "FP32", "float16": "FP16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8"}


def declared_by(bundle: Path, name: str) -> Declaration:
    """From `network_data_format`. Spacing and window are not in it: a model.toml beside the bundle tells them.

    Raises:
        ModelRefused: the metadata is missing, or does not say what goes in and comes out.
    """
    metadata = _json(bundle / METADATA)
    try:
        told = metadata["network_data_format"]
        inputs = tuple(_tensor(key, value) for key, value in told["inputs"].items())
        outputs = tuple(_tensor(key, value) for key, value in told["outputs"].items())
        channels = next(iter(told["outputs"].values())).get("channel_def", {})
        labels = tuple(str(channels[key]) for key in sorted(channels, key=int))
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as problem:
        raise ModelRefused(f"{bundle / METADATA}: network_data_format is not understood: {problem}") from problem
    facts = {"bundle": str(metadata.get("name", bundle.name)), "bundle_version": str(metadata.get("version", ""))}
    return Declaration(name, inputs, outputs, labels, facts=facts)


def network_of(bundle: Path) -> nn.Module:
    """The network that the bundle's configuration names, without weights.

    Raises:
        ModelRefused: it names none of our list, or wants an expression evaluated.
    """
    import monai.networks.nets  # noqa: PLC0415  # seconds, and only where there is no program

    definition = _definition(bundle)
    kind = str(definition.pop("_target_", "")).removeprefix("monai.networks.nets.")
    if kind not in NETWORKS:
        raise ModelRefused(f"{bundle}: network_def names {kind!r}, which is none of {', '.join(sorted(NETWORKS))}")
    if _wants_evaluation(definition):
        raise ModelRefused(f"{bundle}: network_def holds an expression or a reference; those are not evaluated")
    try:
        network: nn.Module = getattr(monai.networks.nets, kind)(**definition)
    except (TypeError, ValueError) as problem:
        raise ModelRefused(f"{bundle}: {kind} cannot be made of its network_def: {problem}") from problem
    return network


def _definition(bundle: Path) -> dict[str, Any]:
    for name in CONFIGURATIONS:
        if (bundle / name).is_file():
            found = _json(bundle / name).get("network_def")
            if isinstance(found, dict):
                return dict(found)
    raise ModelRefused(f"{bundle}: there are weights, but no network_def in {' or '.join(CONFIGURATIONS)}")


def _wants_evaluation(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_wants_evaluation(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return any(_wants_evaluation(part) for part in value)
    return (isinstance(value, str) and value[:1] in {"$", "@", "%"}) or value in {"_target_", "_requires_"}


def _json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_BYTES:
            raise ModelRefused(f"{file} is larger than a configuration is")
        told = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise ModelRefused(f"{file} cannot be read: {problem}") from problem
    if not isinstance(told, dict):
        raise ModelRefused(f"{file} holds no object")
    return told


def _tensor(name: str, raw: dict[str, Any]) -> Tensor:
    sizes = [size if isinstance(size, int) and size > 0 else -1 for size in raw["spatial_shape"]]
    spec = TensorSpec(name, DATATYPES[raw["dtype"]], (int(raw["num_channels"]), *sizes))
    values = [float(value) for value in raw.get("value_range", [])]
    return Tensor(spec, scaled_to=(values[0], values[1]) if len(values) == 2 and values[0] < values[1] else None)
