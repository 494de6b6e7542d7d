"""Is a version in the repository what it says, what the contract says, and does every engine at hand answer alike?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tritonclient import grpc as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from contracts.declaration import FILE, Declaration, declaration_of, read_declaration
from contracts.errors import ModelRefused
from contracts.model_config import CPU_FILE, configurations, labels_file
from contracts.tensors import MODELS
from training.serving import triton_backend_text
from training.serving.graph import problems
from training.serving.parity import TOLERANCE, TOLERANCE_FP16, Answers, compare
from training.serving.samples_in import drawn_slices, real_slices
from training.serving.session_in import Feed, answers, session, slice_feed

ANY_SIDE = 64  # stands for a free size of a foreign input
ASK_S = 60.0
PLAN = "tensorrt_plan"  # Triton's word for a TensorRT engine: it computes in FP16 or TF32, eleven bits either way
NUMPY_TYPES = {"FP16": "float16", "FP32": "float32", "INT32": "int32", "INT64": "int64", "UINT8": "uint8"}


@dataclass(frozen=True)
class Check:
    """One question and its answer."""

    what: str
    passed: bool
    told: str = ""


def verified(model: Path, version: int | None = None, url: str = "") -> list[Check]:
    """Every check of a version; None: the one that is served on the CPU.

    Raises:
        ModelRefused: there is no such model or version, or it declares nothing.
    """
    number = served(model) if version is None else version
    folder = model / str(number)
    if not (folder / FILE).is_file() or not (folder / "model.onnx").is_file():
        raise ModelRefused(f"{folder} holds no model that can be checked: model.onnx and {FILE} are both needed.")
    declared = read_declaration((folder / FILE).read_text("utf-8"), str(folder / FILE))
    return list(_checks(model, folder, declared, number, url))


def served(model: Path) -> int:
    """The version that the CPU's configuration names.

    Raises:
        ModelRefused: there is no such model, or no version is there.
    """
    numbers = sorted(int(path.name) for path in model.glob("*") if path.name.isdigit())
    if not numbers:
        raise ModelRefused(f"There is no model in {model}.")
    config = (model / CPU_FILE).read_text("utf-8") if (model / CPU_FILE).is_file() else ""
    named = [number for number in numbers if f"versions: [ {number} ]" in config]
    return named[0] if named else numbers[-1]


def _checks(model: Path, folder: Path, declared: Declaration, number: int, url: str) -> Iterator[Check]:
    graph = onnx.load(folder / "model.onnx")
    found = problems(graph, declared)
    yield Check("graph is as declared, with operators and types of TensorRT", not found, "; ".join(found))
    yield _contract(declared)
    yield _digest(folder, declared)
    yield Check("backend is the project's", (folder / "model.py").read_text("utf-8") == triton_backend_text())
    if number == served(model):
        yield _configured(model, declared, number)
    feeds = feeds_of(declared)
    running = session(folder / "model.onnx")
    yield _sane(declared, [answers(running, feed) for feed in feeds])
    if "parity" in declared.facts:
        yield Check("parity stated at export", True, declared.facts["parity"])  # it was refused else
    if url:
        yield _server(url, declared, number, lambda feed: answers(running, feed), feeds)


def _contract(declared: Declaration) -> Check:
    ours = MODELS.get(declared.name)
    if ours is None:
        return Check("contract", True, "none: scoring does not ask this model")
    wanted = declaration_of(ours, {}, {})
    same = (declared.inputs, declared.outputs, declared.labels) == (wanted.inputs, wanted.outputs, wanted.labels)
    missing = [label for label in wanted.labels if not _unit(declared.parameters.get(f"threshold.{label}"))]
    missing += [] if declared.parameters.get("grid_pitch_mm") else ["grid_pitch_mm"]
    told = "" if same else "tensors or labels differ from contracts/tensors.py"
    return Check(
        "contract", same and not missing, told or (f"no operating point: {', '.join(missing)}" if missing else "")
    )


def _unit(text: str | None) -> bool:
    try:
        return text is not None and 0.0 <= float(text) <= 1.0
    except ValueError:
        return False


def _digest(folder: Path, declared: Declaration) -> Check:
    import hashlib  # noqa: PLC0415  # only here

    digest = hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    return Check("file is the declared one (SHA-256)", digest == declared.facts.get("sha256"), digest[:16])


def _configured(model: Path, declared: Declaration, number: int) -> Check:
    wanted = configurations(declared, number)
    if declared.labels:
        wanted["labels.txt"] = labels_file(declared)
    other = [name for name, text in wanted.items() if not _same(model / name, text)]
    told = f"differ from what is generated: {', '.join(other)} (triage models promote writes them)" if other else ""
    return Check("configurations are the generated ones", not other, told)


def _same(file: Path, text: str) -> bool:
    return file.is_file() and file.read_text("utf-8") == text


def feeds_of(declared: Declaration, any_side: int = ANY_SIDE) -> list[dict[str, NDArray[Any]]]:
    """Slices, real and drawn, for models that take native HU; numbers of the declared range for others, where
    ``any_side`` stands for a free size.
    """
    if {tensor.spec.name for tensor in declared.inputs} == {"HU", "PIXEL_SPACING"}:
        return [slice_feed(*one) for one in (*real_slices(), *drawn_slices())]
    rng = np.random.default_rng(0)
    feed = {}
    for tensor in declared.inputs:
        low, high = tensor.scaled_to or (0.0, 1.0)
        sizes = [any_side if size == -1 else size for size in tensor.spec.dims]
        shape = [1, *sizes] if declared.batched else sizes
        feed[tensor.spec.name] = rng.uniform(low, high, shape).astype(NUMPY_TYPES[tensor.spec.datatype])
    return [feed]


def _sane(declared: Declaration, told: list[Answers]) -> Check:
    for one in told:
        for tensor in declared.outputs:
            value = one[tensor.spec.name]
            if not np.isfinite(value).all():
                return Check("answers", False, f"{tensor.spec.name} is not finite")
            if declared.name in MODELS and not (value.min() >= 0 and value.max() <= 1):
                return Check("answers", False, f"{tensor.spec.name} is not within 0…1")
    return Check("answers of ONNX Runtime are finite and in range", True, f"{len(told)} images")


def _server(url: str, declared: Declaration, number: int, local: Any, feeds: list[dict[str, NDArray[Any]]]) -> Check:
    client = triton.InferenceServerClient(url)
    try:
        config = client.get_model_config(declared.name, str(number), client_timeout=ASK_S).config
        parity = compare(
            ("ONNX Runtime", local), ("Triton", lambda feed: _asked(client, declared, number, feed)), feeds
        )
    except InferenceServerException as problem:
        return Check("Triton answers as ONNX Runtime does", False, f"{url}: {problem.message()}")
    finally:
        client.close()
    tolerance = TOLERANCE_FP16 if config.platform == PLAN else TOLERANCE
    told = f"{parity}, {tolerance:g} allowed of {config.platform or config.backend}"
    return Check("Triton answers as ONNX Runtime does", parity.within(tolerance), told)


def _asked(client: Any, declared: Declaration, number: int, feed: Feed) -> Answers:
    inputs = []
    for name, value in feed.items():
        tensor = triton.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype))
        tensor.set_data_from_numpy(np.ascontiguousarray(value))
        inputs.append(tensor)
    result = client.infer(declared.name, inputs, str(number), client_timeout=ASK_S)
    return {tensor.spec.name: result.as_numpy(tensor.spec.name) for tensor in declared.outputs}
