"""Writes what Triton serves: the ONNX graph, its declaration, the backend and both configurations of a version."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import onnx
import torch
from torch import nn
from torch.export import Dim

from contracts.declaration import FILE, Declaration, declaration_of
from contracts.errors import ModelRefused
from contracts.model_config import configurations, labels_file
from contracts.tensors import HEAD_CT_LESION, ModelSpec
from training.preprocess import GRID_PITCH_MM, GRID_SIZE
from training.serving import triton_backend_text
from training.serving.graph import problems
from training.serving.parity import Answers, Parity, compare
from training.serving.samples_in import drawn_slices, real_slices
from training.serving.session_in import Feed, Slices, answers, session, slice_feed

OPSET = 18  # TensorRT 10 parses up to 20; 18 is the exporter's own
LARGEST_BATCH, SMALLEST_SIDE, LARGEST_SIDE = 16, 64, 1024


class _Calibrated(Protocol):
    @property
    def thresholds(self) -> Mapping[str, float]: ...


def parameters_of(calibrated: _Calibrated) -> dict[str, str]:
    """What the graph, the declaration and the Triton configurations all say of a model that finds lesions."""
    labels = [label.value for label in HEAD_CT_LESION.labels]
    return {
        "labels": ",".join(labels),
        **{f"threshold.{label}": f"{calibrated.thresholds[label]:.4f}" for label in labels},
        **grid_parameters(GRID_SIZE, GRID_PITCH_MM),
    }


def grid_parameters(grid_size: int, grid_pitch_mm: float) -> dict[str, str]:
    """What every model of ours says."""
    return {"grid_size": str(grid_size), "grid_pitch_mm": f"{grid_pitch_mm:g}", "trained_on": "synthetic"}


def export(served: nn.Module, parameters: Mapping[str, str], file: Path, spec: ModelSpec = HEAD_CT_LESION) -> None:
    """Write the ONNX file: dynamic batch and matrix size, weights inside, parameters as metadata.

    ``served`` takes HU (N, H, W) float16 and spacing (N, 2) float32 and returns the spec's outputs in order.
    """
    examples = (torch.zeros(2, 512, 384, dtype=torch.float16), torch.full((2, 2), 0.5))
    batch = Dim("N", min=1, max=LARGEST_BATCH)
    height, width = (Dim(axis, min=SMALLEST_SIDE, max=LARGEST_SIDE) for axis in ("H", "W"))
    program = torch.onnx.export(
        served.eval(),
        examples,
        dynamic_shapes=({0: batch, 1: height, 2: width}, {0: batch}),
        input_names=[tensor.name for tensor in spec.inputs],
        output_names=[tensor.name for tensor in spec.outputs],
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    if program is None:  # only the older exporter returns nothing
        raise RuntimeError("the ONNX exporter returned no program")
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "model.onnx", external_data=False)
        model = onnx.load(Path(folder) / "model.onnx")
    write_graph(model, parameters, file)


def write_graph(model: onnx.ModelProto, parameters: Mapping[str, str], file: Path) -> None:
    """Checked, without traces of this machine, in place at once or not at all."""
    onnx.helper.set_model_props(model, dict(parameters))
    _forget_sources(model)
    onnx.checker.check_model(model, full_check=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    onnx.save(model, partial)
    partial.replace(file)


def _forget_sources(model: onnx.ModelProto) -> None:
    """The exporter notes file names and stack traces of this machine in every node: they do not belong in a model."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]


def publish(  # what, as what, where to, seen on what
    served: nn.Module,
    spec: ModelSpec,
    parameters: Mapping[str, str],
    models: Path,
    version: int = 1,
    *,
    phantoms: Slices | None = None,
) -> Parity:
    """Export a network of ours as a version of ``spec.name``, state its parity with PyTorch, and serve that version.

    Raises:
        ModelRefused: the graph is not the contract's, or its answers are not the network's.
    """
    folder = models / spec.name / str(version)
    export(served, parameters, folder / "model.onnx", spec)
    parity = torch_parity(served, spec, folder / "model.onnx", [*real_slices(), *(phantoms or drawn_slices())])
    if not parity.within():
        raise ModelRefused(f"{folder / 'model.onnx'}: {parity}")
    write_version(declaration_of(spec, parameters, {"parity": str(parity)}), folder)
    return parity


def torch_parity(served: nn.Module, spec: ModelSpec, file: Path, slices: Slices) -> Parity:
    """PyTorch beside ONNX Runtime on these slices."""
    running = session(file)
    names = [tensor.name for tensor in spec.outputs]

    def eager(feed: Feed) -> Answers:
        with torch.no_grad():
            told = served.eval()(*(torch.from_numpy(feed[tensor.name]) for tensor in spec.inputs))
        tensors = told if isinstance(told, tuple) else (told,)
        return {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}

    feeds = [slice_feed(*one) for one in slices]
    return compare(("PyTorch", eager), ("ONNX Runtime", lambda feed: answers(running, feed)), feeds)


def write_version(declared: Declaration, folder: Path, *, serve: bool = True) -> None:
    """All that stands beside ``folder``/model.onnx; with ``serve`` the model's configurations name this version.

    Raises:
        ModelRefused: the graph is not what is declared, or no engine of ours could run it.
    """
    file = folder / "model.onnx"
    found = problems(onnx.load(file), declared)
    if found:
        raise ModelRefused(f"{file}: {'; '.join(found)}")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    facts = {**declared.facts, "sha256": digest}
    whole = Declaration(
        declared.name, declared.inputs, declared.outputs, declared.labels, declared.parameters, facts, declared.batched
    )
    _put(folder / FILE, whole.text())
    _put(folder / "model.py", triton_backend_text())
    if serve:
        if whole.labels:
            _put(folder.parent / "labels.txt", labels_file(whole))
        for name, text in configurations(whole, int(folder.name)).items():
            _put(folder.parent / name, text)


def _put(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(text, "utf-8")
    partial.replace(file)
