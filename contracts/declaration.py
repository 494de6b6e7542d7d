"""What stands beside every model file: `model.toml`, its name, tensors, units, labels and parameters. Pure text.

A user writes one beside a model to import; exporting and importing write one into each version folder of the Triton
repository, with the graph's digest, so that a version can be checked and served without opening its graph.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contracts.errors import ModelRefused
from contracts.findings import Label
from contracts.tensors import ModelSpec, TensorSpec

FILE = "model.toml"
DATATYPES = ("FP16", "FP32", "INT32", "INT64", "UINT8")
_NAME = re.compile(r"^[a-z][a-z0-9_]{0,63}\Z")  # a folder, a Triton model, a metrics label
_TENSOR = re.compile(r"^[A-Za-z_][A-Za-z0-9_.:/]{0,127}\Z")  # it is written into config.pbtxt between quotes
_PLAIN = re.compile(r'^[^"\\\x00-\x1f\x7f]{0,500}\Z')


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor and what its numbers mean: spacing in mm an axis, the HU window and the range it is mapped to."""

    spec: TensorSpec
    spacing_mm: tuple[float, ...] = ()
    window_hu: tuple[float, float] | None = None
    scaled_to: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """One model version. ``batched``: every tensor has a batch axis before ``dims``; −1 in ``dims`` is any size.

    ``labels`` are the model's own words; ``facts`` say where it is from (format, licence, sha256 of its source);
    ``parameters`` go into the Triton configuration as they are.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    labels: tuple[str, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    batched: bool = True

    @property
    def spec(self) -> ModelSpec:
        """Name and tensors as the configurations need them; only labels of ours are told."""
        known = tuple(Label(word) for word in self.labels if word in set(Label))
        return ModelSpec(self.name, tuple(t.spec for t in self.inputs), tuple(t.spec for t in self.outputs), known)

    def text(self) -> str:
        """The TOML that ``read`` understands."""
        head = {"name": self.name, "batched": self.batched, "labels": list(self.labels)}
        lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            for tensor in tensors:
                lines += ["", f"[[{kind}]]", *_tensor_lines(tensor)]
        for kind, table in (("facts", self.facts), ("parameters", self.parameters)):
            if table:
                lines += ["", f"[{kind}]", *(f"{_quoted(k)} = {_quoted(v)}" for k, v in table.items())]
        return "\n".join(lines) + "\n"


def declaration_of(spec: ModelSpec, parameters: Mapping[str, str], facts: Mapping[str, str]) -> Declaration:
    """The declaration of a model of ours (contracts/tensors.py)."""
    inputs, outputs = (tuple(Tensor(t) for t in tensors) for tensors in (spec.inputs, spec.outputs))
    return Declaration(spec.name, inputs, outputs, tuple(label.value for label in spec.labels), parameters, facts)


def read_declaration(text: str, source: str) -> Declaration:
    """Read one. Raises ModelRefused, which names ``source`` and what is wrong; every key is known or refused."""
    try:
        raw = tomllib.loads(text)
        _only(raw, {"name", "batched", "labels", "inputs", "outputs", "parameters", "facts"})
        found = Declaration(
            name=_matching(_NAME, raw["name"], "name"),
            inputs=tuple(_tensor(one) for one in raw["inputs"]),
            outputs=tuple(_tensor(one) for one in raw["outputs"]),
            labels=tuple(_matching(_PLAIN, word, "label") for word in raw.get("labels", [])),
            parameters=_words(raw.get("parameters", {}), "parameters"),
            facts=_words(raw.get("facts", {}), "facts"),
            batched=_boolean(raw.get("batched", True)),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        what = f"{problem} is missing" if isinstance(problem, KeyError) else str(problem)
        raise ModelRefused(f"{source}: the declaration is not understood: {what}") from problem
    if not found.inputs or not found.outputs:
        raise ModelRefused(f"{source}: a model has at least one input and one output")
    return found


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _tensor_lines(tensor: Tensor) -> list[str]:
    told: dict[str, Any] = {
        "name": tensor.spec.name,
        "datatype": tensor.spec.datatype,
        "dims": list(tensor.spec.dims),
        "spacing_mm": list(tensor.spacing_mm) or None,
        "window_hu": tensor.window_hu and list(tensor.window_hu),
        "scaled_to": tensor.scaled_to and list(tensor.scaled_to),
    }
    return [f"{key} = {json.dumps(value)}" for key, value in told.items() if value is not None]


def _tensor(raw: Mapping[str, Any]) -> Tensor:
    _only(raw, {"name", "datatype", "dims", "spacing_mm", "window_hu", "scaled_to"})
    if raw["datatype"] not in DATATYPES:
        raise ValueError(f"datatype {raw['datatype']!r} is none of {', '.join(DATATYPES)}")
    dims = tuple(int(size) for size in raw["dims"])
    if not all(size == -1 or size > 0 for size in dims):
        raise ValueError(f"dims {list(dims)} must be sizes, or -1 for any")
    spec = TensorSpec(_matching(_TENSOR, raw["name"], "tensor name"), raw["datatype"], dims)
    spacing = tuple(float(value) for value in raw.get("spacing_mm", []))
    if not all(value > 0 for value in spacing):
        raise ValueError(f"spacing_mm {list(spacing)} must be positive")
    return Tensor(spec, spacing, _pair(raw.get("window_hu"), "window_hu"), _pair(raw.get("scaled_to"), "scaled_to"))


def _pair(raw: Any, name: str) -> tuple[float, float] | None:
    if raw is None:
        return None
    low, high = (float(value) for value in raw)
    if not low < high:
        raise ValueError(f"{name} must rise")
    return low, high


def _words(raw: Mapping[str, Any], name: str) -> dict[str, str]:
    return {_matching(_PLAIN, key, name): _matching(_PLAIN, value, f"{name}.{key}") for key, value in raw.items()}


def _matching(pattern: re.Pattern[str], value: Any, name: str) -> str:
    if not isinstance(value, str) or not pattern.match(value):
        raise ValueError(f"{name} {value!r} is not allowed")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("batched must be true or false")
    return value


def _only(raw: Mapping[str, Any], known: set[str]) -> None:
    unknown = set(raw) - known
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
