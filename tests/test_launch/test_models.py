"""`triage models`: what is listed, and what is said where no plan can be built."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from launch.models import app
from launch.models_plan import PROFILE, trtexec_command

REPOSITORY = Path(__file__).parents[2] / "triton_models"


def program(folder: Path, name: str, script: str) -> None:
    """An executable script."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    file.chmod(0o755)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository with one ONNX file."""
    version = tmp_path / "models" / "head_ct_lesion" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(b"onnx")
    (version.parent / "config.pbtxt").write_text("", "utf-8")
    return version


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


def test_where_gpu_and_trtexec_are_the_plan_is_written(
    model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """TensorRT's trtexec is run with the shape profile; its engine becomes model.plan only when it succeeded."""
    program(tmp_path, "nvidia-smi", "echo 'GPU 0: stand-in'")
    program(
        tmp_path,
        "trtexec",
        'for a in "$@"; do case $a in --saveEngine=*) echo plan > "${a#--saveEngine=}";; esac; done',
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])]).exit_code == 0
    assert (model / "model.plan").read_text("utf-8") == "plan\n"


def test_a_failing_trtexec_leaves_no_plan(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Half an engine is never served."""
    program(tmp_path, "nvidia-smi", "echo 'GPU 0: stand-in'")
    program(tmp_path, "trtexec", "echo no such layer; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    told = CliRunner().invoke(app, ["plan", "--repository", str(model.parents[1])])
    assert told.exit_code == 1
    assert "no such layer" in told.output
    assert not (model / "model.plan").exists()


def test_the_profile_covers_the_largest_batch_of_the_configuration() -> None:
    """max_batch_size 16 and matrices up to 1024 are within the plan's shapes."""
    command = trtexec_command("trtexec", Path("model.onnx"), Path("model.plan"))
    assert "--maxShapes=HU:16x1024x1024,PIXEL_SPACING:16x2" in command
    assert PROFILE["opt"] == (8, 512, 512)
