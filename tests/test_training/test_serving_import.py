"""Somebody else's model: what comes in, what is refused, and that nothing of it runs in our own process."""

import json
import os
import pickle
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from torch import nn

from contracts.errors import ModelRefused
from launch.models_repository import versions
from tests.test_training.test_serving_config import GOOD
from tests.test_training.test_serving_graph import graph
from training.networks import blast_ct
from training.serving.import_out import BLAST_DECLARATION, Kind, import_model, kind_of
from training.serving.jail_call import converted
from training.serving.monai_bundle import network_of
from training.serving.parity import compare
from training.serving.session_in import answers, session
from training.serving.verify_call import feeds_of, verified

BESIDE = Path(__file__).parents[3] / "shared" / "models" / "blast-ct" / "model_1.pt"  # beside the clone
BLAST = Path(os.environ.get("TRIAGE_BLAST_CT") or BESIDE)
DEEPBET, DEEPBET_SHA256 = "deepbet==1.0.2", "1999e2ea00ec48f6233b95b96f3901a962d3f70431c63aeb985e8a49a198473c"  # MIT
SMALL = GOOD.replace("dims = [1]", "dims = [4]")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty repository."""
    return tmp_path / "models"


def declared(folder: Path, text: str = SMALL) -> Path:
    """A declaration in a file."""
    file = folder / "declared.toml"
    file.write_text(text, "utf-8")
    return file


def test_an_onnx_graph_comes_in_with_its_declaration(tmp_path: Path, models: Path) -> None:
    """Served, listed as not asked by scoring, verified; a second import of the version is refused."""
    source = tmp_path / "given.onnx"
    source.write_bytes(graph().SerializeToString())
    (tmp_path / "given.toml").write_text(SMALL, "utf-8")
    assert import_model(source, None, None, models, 1).name == "given"
    (one,) = versions(models)
    assert (one.served_by, one.asked_by_scoring) == (("GPU", "CPU"), False)
    assert one.declared is not None
    assert one.declared.facts["source_sha256"] == sha256(source.read_bytes()).hexdigest()
    assert all(check.passed for check in verified(models / "given"))
    with pytest.raises(ModelRefused, match="never overwritten"):
        import_model(source, None, None, models, 1)


def test_a_second_version_comes_in_beside_the_served_one(tmp_path: Path, models: Path) -> None:
    """Importing never changes what is served: promoting does."""
    source = tmp_path / "given.onnx"
    source.write_bytes(graph().SerializeToString())
    for number in (1, 2):
        import_model(source, Kind.ONNX, declared(tmp_path), models, number)
    assert [(one.number, one.served_by) for one in versions(models)] == [(1, ("GPU", "CPU")), (2, ())]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"\x00\x01 no protobuf of any kind", "no valid ONNX"),
        (b"", "no valid ONNX"),
        (graph("NonZero").SerializeToString(), "NonZero"),
    ],
    ids=["noise", "empty", "operator"],
)
def test_a_file_that_is_no_graph_for_us_is_refused_and_leaves_nothing(
    tmp_path: Path, models: Path, content: bytes, told: str
) -> None:
    """The sentence names the file."""
    source = tmp_path / "given.onnx"
    source.write_bytes(content)
    with pytest.raises(ModelRefused, match=r"given\.onnx") as refused:
        import_model(source, None, declared(tmp_path), models, 1)
    assert told in str(refused.value)
    assert not models.exists() or not any(models.rglob("model.onnx"))


def test_a_model_without_a_declaration_is_refused(tmp_path: Path, models: Path) -> None:
    """Inputs are declared, never guessed."""
    source = tmp_path / "given.onnx"
    source.write_bytes(graph().SerializeToString())
    with pytest.raises(ModelRefused, match="needs a declaration"):
        import_model(source, None, None, models, 1)


def test_a_foreign_model_cannot_take_the_place_of_one_that_scoring_asks(tmp_path: Path, models: Path) -> None:
    """The name promises the contract's tensors."""
    source = tmp_path / "given.onnx"
    source.write_bytes(graph().SerializeToString())
    with pytest.raises(ModelRefused, match="asked by scoring"):
        import_model(source, None, declared(tmp_path, SMALL.replace("given", "brain_mask")), models, 1)


class Planted:
    """Unpickling it writes a file."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> Any:
        """What a pickle runs when it is opened."""
        return os.system, (f"touch {self.trap}",)


@pytest.mark.parametrize("how", ["pickle", "torch", "as blast-ct"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, models: Path, how: str) -> None:
    """What is planted in it does not run: not by content, and not where a state dict is asked for by name."""
    trap, source = tmp_path / "sprung", tmp_path / "model.pt"
    if how == "pickle":
        source.write_bytes(pickle.dumps(Planted(trap)))
    else:
        torch.save({"weight": Planted(trap)}, source)
    kind = Kind.BLAST_CT if how == "as blast-ct" else None
    with pytest.raises(ModelRefused, match=r"model\.pt"):
        import_model(source, kind, None, models, 1)
    assert not trap.exists()


class Scripted(nn.Module):
    """A small network with a free size."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) → (N, 2, H, W)."""
        for _ in range(2):  # a loop: the program's own, unrolled by the exporter
            x = x + 1
        return torch.sigmoid(self.conv(x))


class Endless(nn.Module):
    """Never answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """For ever."""
        n = 0
        while n >= 0:
            n = (n + 1) % 7
        return x


IMAGE = SMALL.replace("dims = [4]", "dims = [1, -1, -1]", 1).replace("dims = [4]", "dims = [2, -1, -1]")


def test_torchscript_is_converted_in_a_child_and_answers_alike(tmp_path: Path, models: Path) -> None:
    """The imported graph answers as the program does, at other sizes too."""
    torch.manual_seed(0)
    program = torch.jit.script(Scripted().eval())
    source = tmp_path / "program.pt"
    program.save(str(source))  # type: ignore[no-untyped-call]  # untyped in torch
    assert kind_of(source) is Kind.TORCHSCRIPT
    import_model(source, None, declared(tmp_path, IMAGE), models, 1)
    running = session(models / "given" / "1" / "model.onnx")
    for side in (16, 40):
        x = np.random.default_rng(0).normal(size=(2, 1, side, side)).astype(np.float32)
        with torch.no_grad():
            wanted = program(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(answers(running, {"X": x})["Y"], wanted, atol=1e-5)


def test_a_program_that_never_ends_is_ended(tmp_path: Path) -> None:
    """At the limit, with its whole session; nothing is written."""
    source = tmp_path / "endless.pt"
    torch.jit.script(Endless()).save(str(source))  # type: ignore[no-untyped-call]  # untyped in torch
    with pytest.raises(ModelRefused, match="took longer than"):
        converted("torchscript", source, SMALL, tmp_path / "out.onnx", wall_s=4.0)
    assert not (tmp_path / "out.onnx").exists()
    left = subprocess.run(["pgrep", "-f", str(source)], capture_output=True, text=True, check=False)
    assert left.stdout == ""


def bundle(folder: Path, trap: Path, **network: Any) -> Path:
    """A MONAI bundle of our own making, with an expression planted wherever one may stand."""
    evil = f"$__import__('os').system('touch {trap}')"
    image = {
        "type": "image",
        "num_channels": 1,
        "spatial_shape": ["16*n", 32],
        "dtype": "float32",
        "value_range": [0, 1],
    }
    classes = {
        "type": "image",
        "num_channels": 2,
        "spatial_shape": [32, 32],
        "dtype": "float32",
        "channel_def": {"0": "no", "1": "yes"},
    }
    metadata = {
        "version": "0.1",
        "name": "ours",
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": classes}},
    }
    inference = {
        "imports": ["$import os"],
        "bundle_root": evil,
        "network_def": network,
        "evaluator": {"_target_": evil},
    }
    for name, value in (("metadata", metadata), ("inference", inference)):
        file = folder / "configs" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), "utf-8")
    (folder / "models").mkdir()
    return folder


UNET = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}


def test_a_monai_bundle_with_weights_comes_in_and_its_expressions_are_never_evaluated(
    tmp_path: Path, models: Path
) -> None:
    """Tensors and labels from its metadata; the network from a list of known ones."""
    trap = tmp_path / "sprung"
    source = bundle(tmp_path / "ours", trap, **UNET)
    network = network_of(source)
    torch.save(network.state_dict(), source / "models" / "model.pt")
    told = import_model(source, None, None, models, 1)
    assert told.labels == ("no", "yes")
    assert told.inputs[0].spec.dims == (1, -1, 32)
    feed = {"image": np.random.default_rng(0).uniform(size=(1, 1, 48, 32)).astype(np.float32)}
    with torch.no_grad():
        wanted = network.eval()(torch.from_numpy(feed["image"])).numpy()
    np.testing.assert_allclose(answers(session(models / "ours" / "1" / "model.onnx"), feed)["pred"], wanted, atol=1e-4)
    assert not trap.exists()


@pytest.mark.parametrize(
    "network",
    [
        {**UNET, "channels": "$[4, 8]"},
        {**UNET, "channels": "@channels"},
        {**UNET, "norm": {"_target_": "os.system"}},
        {**UNET, "_target_": "os.system"},
        {**UNET, "_target_": "monai.networks.nets.UNet.__init__"},
    ],
    ids=["expression", "reference", "nested target", "foreign target", "path"],
)
def test_a_bundle_that_wants_code_run_for_its_network_is_refused(tmp_path: Path, network: dict[str, Any]) -> None:
    """Nothing is evaluated to find out."""
    source = bundle(tmp_path / "ours", tmp_path / "sprung", **network)
    with pytest.raises(ModelRefused, match="network_def"):
        network_of(source)
    assert not (tmp_path / "sprung").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, models: Path) -> None:
    """And so is one whose metadata is none."""
    with pytest.raises(ModelRefused, match=r"metadata\.json"):
        import_model(tmp_path, None, None, models, 1)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}", "utf-8")
    with pytest.raises(ModelRefused, match="network_data_format"):
        import_model(tmp_path, None, None, models, 1)


@pytest.mark.skipif(not BLAST.is_file(), reason="BLAST-CT's weights are not at hand (TRIAGE_BLAST_CT)")
def test_blast_ct_comes_in_and_answers_as_pytorch_does(models: Path) -> None:
    """Real weights of real scans: 1,032,986 numbers, 110 mm in, 30 mm out, the classes sum to one."""
    import_model(BLAST, Kind.BLAST_CT, None, models, 1)
    network = blast_ct.BlastCtChances(blast_ct.load(BLAST)).eval()
    assert sum(value.numel() for value in network.state_dict().values()) == 1_032_986
    running = session(models / "blast_ct" / "1" / "model.onnx")
    torch.set_flush_denormal(True)

    def eager(feed: Any) -> Any:
        with torch.no_grad():
            return {"CLASSES": network(torch.from_numpy(feed["VOLUME"])).numpy()}

    parity = compare(("PyTorch", eager), ("ONNX Runtime", lambda f: answers(running, f)), feeds_of(BLAST_DECLARATION))
    assert parity.within(), str(parity)


@pytest.fixture(scope="module")
def deepbet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two TorchScript networks of the deepbet wheel, fetched without its dependencies."""
    folder = tmp_path_factory.mktemp("deepbet")
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is None:
        pytest.skip("no pip to fetch deepbet with")
    told = subprocess.run(
        [pip, "download", "--quiet", "--no-deps", "--dest", str(folder), DEEPBET],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PIP_DEFAULT_TIMEOUT": "10"},
    )
    wheels = list(folder.glob("*.whl"))
    if told.returncode or not wheels:
        pytest.skip(f"deepbet cannot be fetched: {told.stderr[-200:]}")
    assert sha256(wheels[0].read_bytes()).hexdigest() == DEEPBET_SHA256
    with ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract("data/models/bbox_model.pt", folder))


def test_a_real_torchscript_network_of_others_comes_in(deepbet: Path, tmp_path: Path, models: Path) -> None:
    """Deepbet's MR brain box, as its wheel ships it: imported, verified, and the same answers."""
    text = SMALL.replace("dims = [4]", "dims = [1, 128, 128, 128]", 1).replace(
        "dims = [4]", "dims = [2, 128, 128, 128]"
    )
    import_model(deepbet, None, declared(tmp_path, text), models, 1)
    assert all(check.passed for check in verified(models / "given"))
    program = torch.jit.load(str(deepbet), map_location="cpu").eval()  # type: ignore[no-untyped-call]  # its digest is known
    x = np.random.default_rng(0).uniform(size=(1, 1, 128, 128, 128)).astype(np.float32)
    with torch.no_grad():
        wanted = program(torch.from_numpy(x)).numpy()
    found = answers(session(models / "given" / "1" / "model.onnx"), {"X": x})["Y"]
    assert float(np.abs(found - wanted).max()) < 1e-3
