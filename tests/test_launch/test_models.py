"""`triage models`: what is listed, what a plan is compared with, and what is said where none can be built."""

import shutil
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.models import app
from launch.models_plan import PROFILE, has_gpu, trtexec_command
from launch.models_repository import read_version

REPOSITORY = Path(__file__).parents[2] / "triton_models"
# A stand-in for trtexec that knows its options and no others: its engine is the graph itself, run by ONNX Runtime, and
# its answers are written as trtexec 10 writes them (samples/common/sampleReporting.cpp), each off by OFF.
TRTEXEC = """\
#!{python}
import argparse, json, shutil, numpy, onnxruntime
reads = argparse.ArgumentParser(allow_abbrev=False)
for name in "onnx saveEngine minShapes optShapes maxShapes loadEngine shapes loadInputs exportOutput".split():
    reads.add_argument("--" + name)
for name in "iterations duration warmUp".split():
    reads.add_argument("--" + name, type=int)
reads.add_argument("--skipInference", action="store_true")
told = reads.parse_args()
if told.onnx:
    shutil.copy(told.onnx, told.saveEngine)
else:
    def named(text):
        return dict(one.split(":", 1) for one in text.split(","))
    session = onnxruntime.InferenceSession(open(told.loadEngine, "rb").read())
    kinds = {{"tensor(float16)": "float16", "tensor(float)": "float32"}}
    kinds = {{one.name: kinds[one.type] for one in session.get_inputs()}}
    sizes = {{name: [int(size) for size in text.split("x")] for name, text in named(told.shapes).items()}}
    files = named(told.loadInputs)
    feed = {{name: numpy.fromfile(files[name], kinds[name]).reshape(sizes[name]) for name in kinds}}
    outputs = [one.name for one in session.get_outputs()]
    answers = [
        {{"name": name, "dimensions": "x".join(map(str, value.shape)), "values": (value.ravel() + {off}).tolist()}}
        for name, value in zip(outputs, session.run(outputs, feed))
    ]
    open(told.exportOutput, "w").write(json.dumps(answers){mangled})
"""


def program(folder: Path, name: str, script: str) -> None:
    """An executable script."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    file.chmod(0o755)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository with one version of one model."""
    version = tmp_path / "models" / "head_ct_lesion" / "1"
    version.mkdir(parents=True)
    for name in ("model.onnx", "model.toml"):
        shutil.copy(REPOSITORY / "head_ct_lesion" / "1" / name, version / name)
    (version.parent / "config.pbtxt").write_text("", "utf-8")
    return version


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a machine's own programs, where a driver tells of a GPU."""
    program(tmp_path, "nvidia-smi", "echo 'GPU 0: stand-in'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def trtexec(folder: Path, off: float, mangled: str = "") -> None:
    """A trtexec whose engines are off by so much."""
    (folder / "trtexec").write_text(TRTEXEC.format(python=sys.executable, off=off, mangled=mangled), "utf-8")
    (folder / "trtexec").chmod(0o755)


def test_list_names_the_shipped_model_and_its_graph() -> None:
    """What would be served."""
    told = CliRunner().invoke(app, ["list", "--repository", str(REPOSITORY)])
    assert told.exit_code == 0
    assert "head_ct_lesion 1: model.onnx" in told.output


def test_without_a_gpu_plan_says_so_and_fails(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sentence, status 1, and no plan."""
    monkeypatch.setenv("PATH", str(tmp_path))
    told = CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])])
    assert told.exit_code == 1
    assert "No NVIDIA GPU answers on this machine" in told.output
    assert not (model / "model.plan").exists()


def test_without_a_graph_plan_says_which_file_is_missing(tmp_path: Path) -> None:
    """A sentence with the path."""
    told = CliRunner().invoke(app, ["plan", "other", "--repository", str(tmp_path)])
    assert told.exit_code == 1
    assert "no ONNX graph" in told.output


def test_where_gpu_and_trtexec_are_the_plan_is_written_and_its_parity_told(model: Path, gpu: Path) -> None:
    """Built with the shape profile, then asked real and drawn slices beside ONNX Runtime: off by what FP16 allows."""
    trtexec(gpu, 0.005)
    told = CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "ONNX Runtime ↔ TensorRT on 4 slices: largest difference 5.0e-03" in told.output
    assert (model / "model.plan").read_bytes() == (model / "model.onnx").read_bytes()


@pytest.mark.parametrize(
    ("off", "mangled", "told"),
    [
        (0.1, "", "does not answer as its graph: ONNX Runtime ↔ TensorRT"),
        (0.0, ".replace('0.', 'nan', 1)", "are not understood"),
        (0.0, " and exit(3)", "could not run the plan"),
    ],
    ids=["disagrees", "not a number", "fails"],
)
def test_a_plan_that_disagrees_is_thrown_away(model: Path, gpu: Path, off: float, mangled: str, told: str) -> None:
    """A sentence, status 1, and nothing is left that a server could load."""
    trtexec(gpu, off, mangled)
    done = CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])])
    assert done.exit_code == 1
    assert told in done.output
    assert not list(model.glob("model.plan*"))


@pytest.mark.skipif(not has_gpu(), reason="no NVIDIA GPU on this machine")
@pytest.mark.parametrize("name", ["head_ct_lesion", "brain_mask"])
def test_on_a_gpu_the_shipped_models_become_plans_that_answer_as_their_graphs(name: str, tmp_path: Path) -> None:
    """With trtexec or the tensorrt package: one of them belongs on a machine with a GPU."""
    shutil.copytree(REPOSITORY / name, tmp_path / name)
    told = CliRunner().invoke(app, ["plan", name, "--repository", str(tmp_path)], catch_exceptions=False)
    assert told.exit_code == 0, told.output
    assert "ONNX Runtime ↔ TensorRT" in told.output
    assert (tmp_path / name / "1" / "model.plan").is_file()


def test_a_failing_trtexec_leaves_no_plan(model: Path, gpu: Path) -> None:
    """Half an engine is never served."""
    program(gpu, "trtexec", "echo no such layer; exit 1")
    told = CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])])
    assert told.exit_code == 1
    assert "no such layer" in told.output
    assert not list(model.glob("model.plan*"))


def test_the_profile_covers_the_largest_batch_of_the_configuration() -> None:
    """max_batch_size 16 and matrices up to 1024 are within the plan's shapes."""
    command = trtexec_command(
        "trtexec", Path("model.onnx"), Path("model.plan"), read_version(REPOSITORY / "head_ct_lesion" / "1")
    )
    assert "--maxShapes=HU:16x1024x1024,PIXEL_SPACING:16x2" in command
    assert PROFILE["opt"] == (8, 512, 512)
