"""What is told of a graph that is not as declared, parity between engines, and publishing a version."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from contracts.declaration import Declaration, Tensor, declaration_of, read_declaration
from contracts.errors import ModelRefused
from contracts.tensors import BRAIN_MASK, TensorSpec
from training.networks.brain_mask import MASK_PITCH_MM, MASK_SIZE, BrainTrunk, ServedBrainMask
from training.serving.export_out import grid_parameters, publish, torch_parity, write_version
from training.serving.graph import problems
from training.serving.parity import compare
from training.serving.samples_in import drawn_slices, real_slices
from training.serving.verify_call import verified
from training.slices_out import SliceTable

ONE = Tensor(TensorSpec("X", "FP32", (4,)))
TWO = Tensor(TensorSpec("Y", "FP32", (4,)))
DECLARED = Declaration("small", (ONE,), (TWO,))


def graph(operator: str = "Relu", opset: int = 18, kind: int = TensorProto.FLOAT, domain: str = "") -> onnx.ModelProto:
    """X (N, 4) → Y (N, 4)."""
    node = helper.make_node(operator, ["X"], ["Y"], domain=domain)
    ends = [helper.make_tensor_value_info(name, kind, ["N", 4]) for name in "XY"]
    body = helper.make_graph([node], "small", [ends[0]], [ends[1]])
    domains = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(body, opset_imports=domains, ir_version=9)


def test_a_graph_as_declared_has_no_problems() -> None:
    """The tests below break this one."""
    assert problems(graph(), DECLARED) == []


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (graph("NonZero"), "NonZero"),
        (graph("Evil", domain="com.example"), "com.example.Evil"),
        (graph(opset=9), "opset 9"),
        (graph(kind=TensorProto.FLOAT16), "FLOAT16"),
    ],
    ids=["data-dependent shape", "foreign domain", "old opset", "other type"],
)
def test_each_way_of_being_unfit_is_told(broken: onnx.ModelProto, told: str) -> None:
    """In a sentence that names it."""
    assert told in "; ".join(problems(broken, DECLARED))


def test_names_shapes_metadata_and_outside_weights_are_looked_at() -> None:
    """A tensor of another name, a size of another length, a contradicting threshold, weights elsewhere."""
    other = Declaration("small", (Tensor(TensorSpec("Z", "FP32", (4,))),), (TWO,))
    assert "declared are Z" in problems(graph(), other)[0]
    shorter = Declaration("small", (Tensor(TensorSpec("X", "FP32", (3,))),), (TWO,))
    assert "[-1, 4]" in problems(graph(), shorter)[0]
    told = graph()
    helper.set_model_props(told, {"threshold.any": "0.9"})
    assert "0.9" in problems(told, Declaration("small", (ONE,), (TWO,), (), {"threshold.any": "0.5"}))[0]
    outside = graph()
    weight = numpy_helper.from_array(np.zeros(4, np.float32), "w")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    outside.graph.initializer.append(weight)
    assert "outside the file" in "; ".join(problems(outside, DECLARED))


def test_parity_states_the_largest_difference_and_never_overlooks_nan() -> None:
    """Of all outputs and feeds; another shape or a NaN is without bound."""
    feeds = [{"X": np.zeros(1, np.float32)}, {"X": np.ones(1, np.float32)}]
    same = compare(("a", lambda feed: {"Y": feed["X"]}), ("b", lambda feed: {"Y": feed["X"] * 1.5}), feeds)
    assert same.worst == 0.5
    assert "0.5" in str(same) or "5.0e-01" in str(same)
    for wrong in (np.full(1, np.nan, np.float32), np.zeros(2, np.float32)):
        told = compare(("a", lambda feed: {"Y": feed["X"]}), ("b", lambda _feed, w=wrong: {"Y": w}), feeds)  # type: ignore[misc]
        assert not told.within(1e9)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained brain mask, exported into a repository of its own."""
    torch.manual_seed(0)
    models = tmp_path_factory.mktemp("models")
    parity = publish(ServedBrainMask(BrainTrunk()), BRAIN_MASK, grid_parameters(MASK_SIZE, MASK_PITCH_MM), models)
    assert parity.within()
    return models / "brain_mask"


def test_publishing_writes_a_version_that_verifies(published: Path) -> None:
    """Graph, declaration with digest and parity, backend, both configurations: every check passes."""
    checks = verified(published)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    assert any("PyTorch ↔ ONNX Runtime" in check.told for check in checks)


@pytest.mark.parametrize("file", ["model.onnx", "model.py", "../config.pbtxt", "../configs/cpu.pbtxt"])
def test_verify_finds_a_file_that_was_touched(published: Path, file: str) -> None:
    """Whichever it is."""
    target = (published / "1" / file).resolve()
    whole = target.read_bytes()
    touched = whole + b"\n" if target.suffix != ".onnx" else whole.replace(b"grid_size", b"grid_sise")
    target.write_bytes(touched)
    try:
        assert not all(check.passed for check in verified(published))
    finally:
        target.write_bytes(whole)


def test_pytorch_and_onnx_runtime_agree_on_real_and_phantom_slices(published: Path, small_table: SliceTable) -> None:
    """One real head and phantoms: the graph that is served is the network that was trained."""
    torch.manual_seed(0)
    served = ServedBrainMask(BrainTrunk()).eval()
    phantoms = [(small_table.hu[n].astype(np.float32), float(small_table.pitch_mm[n])) for n in range(3)]
    slices = [*real_slices(), *drawn_slices(), *phantoms]
    assert torch_parity(served, BRAIN_MASK, published / "1" / "model.onnx", slices).within()


def test_a_graph_that_is_not_as_declared_is_never_published(tmp_path: Path, published: Path) -> None:
    """The contract's tensors, or nothing."""
    folder = tmp_path / "brain_mask" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes((published / "1" / "model.onnx").read_bytes())
    other = Declaration("brain_mask", (ONE,), (TWO,))
    with pytest.raises(ModelRefused, match="declared are X"):
        write_version(other, folder)
    assert not (tmp_path / "brain_mask" / "config.pbtxt").exists()


def test_a_versions_declaration_says_where_the_file_is_from(published: Path) -> None:
    """Digest and parity are facts of it; the parameters are the graph's metadata."""
    text = (published / "1" / "model.toml").read_text("utf-8")
    declared = read_declaration(text, "here")
    assert set(declared.facts) == {"parity", "sha256"}
    told = {p.key: p.value for p in onnx.load(published / "1" / "model.onnx").metadata_props}
    assert declared == declaration_of(BRAIN_MASK, told, declared.facts)
