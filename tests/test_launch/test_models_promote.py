"""`triage models promote`: which version is served, in one step, with its thresholds, and back again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contracts.declaration import FILE, declaration_of
from contracts.errors import ModelRefused
from contracts.tensors import BRAIN_MASK
from launch.models import app
from launch.models_repository import HISTORY, promote, served_versions
from launch.stack.part import ProgramMissing
from launch.stack.triton_server import TritonServer
from tests.conftest import missing
from training.serving.export_out import write_version

SHIPPED = Path(__file__).parents[2] / "triton_models" / "brain_mask" / "1" / "model.onnx"
PARAMETERS = {"grid_size": "72", "grid_pitch_mm": "3.2", "trained_on": "synthetic"}
FILES = ("config.pbtxt", "configs/cpu.pbtxt")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two versions of the brain mask that differ in a parameter; the first is served."""
    for number in (1, 2):
        folder = tmp_path / "brain_mask" / str(number)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(SHIPPED.read_bytes())
        told = declaration_of(BRAIN_MASK, {**PARAMETERS, "made": str(number)}, {})
        write_version(told, folder, serve=number == 1)
    return tmp_path / "brain_mask"


def told(*arguments: str, model: Path) -> str:
    """What the command says; it succeeds."""
    done = CliRunner().invoke(app, [*arguments, "--repository", str(model.parent)])
    assert done.exit_code == 0, done.output
    return done.output


def texts(model: Path) -> dict[str, str]:
    """Everything that Triton reads of the model beside its versions."""
    return {name: (model / name).read_text("utf-8") for name in FILES}


def test_promotion_moves_both_engines_and_the_parameters_with_them(model: Path) -> None:
    """Version and operating points change together, and back together."""
    before = texts(model)
    assert "version 2 is served, before it 1" in told("promote", "brain_mask", "2", model=model)
    assert served_versions(model) == {"GPU": 2, "CPU": 2}
    assert all('key: "made" value { string_value: "2" }' in text for text in texts(model).values())
    assert "brain_mask 2: model.onnx · served (GPU, CPU)" in told("list", model=model)
    told("promote", "brain_mask", "--back", model=model)
    assert texts(model) == before
    assert not (model / HISTORY).exists()


def test_there_is_nothing_to_go_back_to_at_first(model: Path) -> None:
    """A sentence and status 1."""
    done = CliRunner().invoke(app, ["promote", "brain_mask", "--back", "--repository", str(model.parent)])
    assert done.exit_code == 1
    assert "no other version" in done.output


@pytest.mark.parametrize("damage", ["graph", "declaration", "backend", "name"])
def test_a_version_that_is_not_sound_is_never_served(model: Path, damage: str) -> None:
    """Another graph than declared, nothing declared, no backend, another model's declaration."""
    folder = model / "2"
    if damage == "graph":
        (folder / "model.onnx").write_bytes(SHIPPED.read_bytes() + b"\0")
    elif damage == "name":
        text = (folder / FILE).read_text("utf-8").replace('name = "brain_mask"', 'name = "other"')
        (folder / FILE).write_text(text, "utf-8")
    else:
        (folder / (FILE if damage == "declaration" else "model.py")).unlink()
    before = texts(model)
    with pytest.raises(ModelRefused):
        promote(model, 2)
    assert texts(model) == before


def test_a_server_that_does_not_take_it_keeps_the_old_version(model: Path) -> None:
    """Both configurations are put back, and the history too; so they are where asking the server fails."""
    before = texts(model)
    with pytest.raises(ModelRefused, match="did not take"):
        promote(model, 2, lambda: False)
    assert texts(model) == before

    def broken() -> bool:
        raise OSError("no server")

    with pytest.raises(OSError, match="no server"):
        promote(model, 2, broken)
    assert texts(model) == before
    assert not (model / HISTORY).exists()


def test_a_configuration_that_cannot_be_written_leaves_both_as_they_were(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second rename fails: the first is taken back."""
    before, real, done = texts(model), Path.replace, []

    def failing(self: Path, target: Path) -> Path:
        done.append(target)
        if len(done) == 2:
            raise OSError("disk full")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(OSError, match="disk full"):
        promote(model, 2)
    assert texts(model) == before


class Explicit(TritonServer):
    """Loads what it is told to, as a server that is promoted live does."""

    def command(self) -> Sequence[str]:
        """The same switches but one."""
        switches = [s for s in super().command() if not s.startswith("--model-control-mode")]
        return [*switches, "--model-control-mode=explicit", "--load-model=*"]


@pytest.fixture
def live(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server of that repository."""
    server = Explicit(tmp_path_factory.mktemp("triton"), model.parent)
    try:
        server.start()
    except ProgramMissing as problem:
        missing(str(problem))
    yield server
    server.close()


@pytest.mark.stack
def test_a_running_server_is_promoted_verified_and_rolled_back(live: TritonServer, model: Path) -> None:
    """Version 2 answers as its graph does; a version that the server cannot load leaves 2 served on disk and live."""
    told("promote", "brain_mask", "2", "--triton", live.grpc, model=model)
    assert "Triton answers as ONNX Runtime does" in told("verify", "brain_mask", "--triton", live.grpc, model=model)
    broken = model / "3"
    broken.mkdir()
    (broken / "model.onnx").write_bytes(SHIPPED.read_bytes())
    declared = declaration_of(BRAIN_MASK, PARAMETERS, {})
    write_version(replace(declared, facts={}), broken, serve=False)
    (broken / "model.py").write_text("raise RuntimeError('does not load')\n", "utf-8")
    done = CliRunner().invoke(
        app, ["promote", "brain_mask", "3", "--triton", live.grpc, "--repository", str(model.parent)]
    )
    assert done.exit_code == 1
    assert "did not take version 3" in done.output
    assert served_versions(model) == {"GPU": 2, "CPU": 2}
    assert "FAIL" not in told("verify", "brain_mask", "--triton", live.grpc, model=model)
