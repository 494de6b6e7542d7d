"""Pruning, INT8 and FP16: what they change, what they may not, and the rule that chooses."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from typer.testing import CliRunner

from launch.models import app
from training.serving.compress_out import quantised
from training.serving.compression import AUC_LOSS, RULE, Measured, best, halved, table
from training.serving.graph import operator_problems
from training.serving.pruning import chains, thinned
from training.serving.session_in import answers, session
from training.serving.tuning import tuned
from training.serving.verify_call import verified

SHIPPED = Path(__file__).parents[2] / "triton_models"


class Small(nn.Module):
    """Two inner layers, a skip around the second, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.first = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, H, W) both ways."""
        x = self.wide(self.stem(x))
        return torch.sigmoid(self.head(torch.relu(x + self.second(self.first(x)))))


def network() -> Small:
    """The same weights every time, with statistics that are not the identity."""
    torch.manual_seed(1)
    made = Small()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]  # a BatchNorm2d has one unless told
    return made.eval()


def exported(made: nn.Module) -> onnx.ModelProto:
    """As served."""
    program = torch.onnx.export(
        made, (torch.zeros(1, 1, 32, 32),), input_names=["X"], output_names=["Y"], dynamo=True, opset_version=18
    )
    assert program is not None
    return program.model_proto


@pytest.fixture(scope="module")
def plain() -> onnx.ModelProto:
    """The small network's graph."""
    return exported(network())


X = np.random.default_rng(0).normal(0, 1, (1, 1, 32, 32)).astype(np.float32)


def asked(model: onnx.ModelProto) -> NDArray[np.float32]:
    """Its answer."""
    return answers(session(model.SerializeToString()), {"X": X})["Y"]


def channels(model: onnx.ModelProto) -> dict[str, int]:
    """Channels of every convolution."""
    return {w.name: w.dims[0] for w in model.graph.initializer if len(w.dims) == 4}


def test_only_channels_that_nothing_else_sees_are_cut(plain: onnx.ModelProto) -> None:
    """Stem and first layer are inner; the one that the skip reads, and the head, keep their shapes."""
    assert [chain.weight for chain in chains(plain)] == ["stem.0.weight", "first.0.weight"]
    cut = channels(thinned(plain, 0.5))
    assert cut == {**channels(plain), "stem.0.weight": 8, "first.0.weight": 8}
    assert asked(thinned(plain, 0.5)).shape == asked(plain).shape


def test_a_pruned_graph_is_tuned_towards_the_original(plain: onnx.ModelProto) -> None:
    """On an input that it was not tuned on it lies nearer than before; its shapes and the original stay as they are."""
    rng = np.random.default_rng(2)
    feeds = [{"X": rng.normal(0, 1, (1, 1, 32, 32)).astype(np.float32)} for _ in range(8)]
    before, cut = asked(plain), thinned(plain, 0.5)
    better = tuned(cut, plain, feeds, 100)
    assert np.abs(asked(better) - before).mean() < 0.7 * np.abs(asked(cut) - before).mean()
    assert channels(better) == channels(cut)
    assert operator_problems(better) == []
    assert np.array_equal(asked(plain), before)
    assert np.array_equal(asked(tuned(cut, plain, feeds, 0)), asked(cut))


def test_int8_and_fp16_answer_nearly_alike_and_stay_within_the_operators(plain: onnx.ModelProto) -> None:
    """Weights really are of those types; both engines can run the graphs."""
    rng = np.random.default_rng(1)
    calibration = [{"X": rng.normal(0, 1, (1, 1, 32, 32)).astype(np.float32)} for _ in range(8)]
    small, half = quantised(plain, calibration), halved(plain)
    for model, kind, tolerance in ((small, onnx.TensorProto.INT8, 0.05), (half, onnx.TensorProto.FLOAT16, 5e-3)):
        assert kind in {weight.data_type for weight in model.graph.initializer}
        assert operator_problems(model) == []
        np.testing.assert_allclose(asked(model), asked(plain), atol=tolerance)


ORIGINAL = Measured("original", 1000, 1.0, 0.95, 0.75, 0.0, 0.0)


@pytest.mark.parametrize(
    ("candidate", "chosen"),
    [
        (Measured("good", 500, 1.5, 0.95, 0.75, 0.01, 0.0), "good"),
        (Measured("slow", 500, 1.05, 0.95, 0.75, 0.01, 0.0), "original"),
        (Measured("worse", 500, 3.0, 0.95 - 2 * AUC_LOSS, 0.75, 0.01, 0.0), "original"),
        (Measured("blurred", 500, 3.0, 0.95, 0.70, 0.01, 0.0), "original"),
        (Measured("other", 500, 3.0, 0.95, 0.75, 0.4, 0.1), "original"),
        (Measured("foreign", 500, 3.0, 0.95, 0.75, 0.0, 0.0, ("an operator",)), "original"),
        (Measured("broken", 500, 3.0, float("nan"), 0.75, 0.0, 0.0), "original"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_the_rule_takes_the_fastest_that_costs_nothing(candidate: Measured, chosen: str) -> None:
    """Faster alone is never enough, and not a number is never good."""
    faster = Measured("fair", 400, 1.2, 0.95, 0.75, 0.01, 0.0)
    assert best([ORIGINAL, candidate]).name == chosen
    assert best([ORIGINAL, candidate, faster]).name == ("good" if chosen == "good" else "fair")


def test_the_table_has_every_candidate_in_its_row() -> None:
    """With speed, accuracy and whether the rule lets it."""
    text = table([ORIGINAL, Measured("small", 500, 1.5, 0.9, 0.75, 0.01, 0.0)])
    assert "| small | 0 | 1.50 | 0.900 |" in text.replace("| small | 1 |", "| small | 0 |")
    assert text.splitlines()[-1].endswith("| no |")
    assert "fastest" in RULE


def test_a_model_without_labels_has_no_auc_and_is_chosen_by_the_rest() -> None:
    """A dash in the table, not a figure that nobody measured."""
    original = Measured("original", 1000, 1.0, None, 1.0, 0.0, 0.0)
    found = [original, Measured("small", 500, 1.5, None, 0.995, 0.01, 0.0)]
    assert best(found).name == "small"
    assert "| small | 0 | 1.50 | – | 0.995 |" in table(found).replace("| small | 1 |", "| small | 0 |")


def test_compress_tunes_what_it_prunes_and_tells_it(tmp_path: Path) -> None:
    """From the command line, on the brain mask: every candidate has its row, pruned ones say how long they were tuned,
    and what is chosen becomes a version that verifies.
    """
    shutil.copytree(SHIPPED / "brain_mask", tmp_path / "brain_mask")
    told = ["compress", "brain_mask", "--heads", "4", "--tune-steps", "2", "--target", "2"]
    folders = ["--repository", str(tmp_path), "--reports", str(tmp_path / "reports")]
    done = CliRunner().invoke(app, [*told, *folders], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = [line for line in done.output.splitlines() if line.startswith("| ")]
    assert len(rows) == 8
    assert all("| – |" in row for row in rows[1:])
    assert "tuned for 2 steps" in done.output
    assert all(check.passed for check in verified(tmp_path / "brain_mask", 2))
