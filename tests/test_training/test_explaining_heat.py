"""Where the network looked: exported graphs followed by gradients, heat on planted lesions, the command."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image
from scipy import ndimage
from typer.testing import CliRunner

from launch.commands import app
from tests.test_training import data_cases
from training.evaluation.figures import logit
from training.evaluation.network_in import Network
from training.explaining import methods
from training.explaining.methods import Heat, Slice, share_inside
from training.explaining.onnx_graph import NotExplainable, OnnxGraph
from training.explaining.subject import Subject, subject_of_checkpoint, subject_of_onnx
from training.networks.student import Trunk
from training.onnx_in import OnnxModel
from training.phantom.atlas_in import Atlas
from training.recipe import SliceSet
from training.slices_out import SliceTable, draw_slices

SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
PLAIN = SliceSet(first_seed=8_200_000, heads=6, slices_per_head=2, lesion_share=1.0, difficulty=(0.0, 0.2))
NEAR_MM = 4.5  # a heat of 6 mm a sample cannot end at the lesion's border
Planted = list[tuple[Slice, NDArray[np.bool_], float]]


@pytest.fixture(scope="module")
def subject() -> Subject:
    """The shipped model with gradients."""
    return subject_of_onnx(SHIPPED)


@pytest.fixture(scope="module")
def network() -> Network:
    """The shipped model as it is served."""
    return Network(SHIPPED)


@pytest.fixture(scope="module")
def planted(atlas: Atlas, network: Network, tmp_path_factory: pytest.TempPathFactory) -> Planted:
    """Slices whose planted lesion the network sees: slice, lesion with its surroundings, chance (share of the head)."""
    table: SliceTable = draw_slices(PLAIN, atlas, tmp_path_factory.mktemp("plain"))
    found: Planted = []
    for nth in np.flatnonzero(table.labels[:, 0] == 1):
        one = Slice(table.hu[nth], (float(table.pitch_mm[nth]),) * 2)
        if network.answers(one.hu[None], one.spacing_mm)[0][0, 0] >= network.thresholds["any"]:
            near = ndimage.binary_dilation(table.bits[nth] > 0, iterations=round(NEAR_MM / one.spacing_mm[0]))
            inside = ndimage.binary_fill_holes(one.hu > -300)
            found.append((one, near, float(near.sum() / inside.sum())))
    assert len(found) >= 4
    return found


def gains(heats: list[Heat], planted: Planted) -> NDArray[np.float64]:
    """How many times more heat lies on the lesion than chance would put there."""
    pairs = zip(heats, planted, strict=True)
    return np.array([share_inside(heat, near) / chance for heat, (_, near, chance) in pairs])


def test_the_graph_in_pytorch_answers_what_onnx_runtime_answers() -> None:
    """Both outputs, batches and matrices that are not square; and a gradient reaches the pixels."""
    rng = np.random.default_rng(0)
    hu, spacing = rng.normal(20, 200, (2, 160, 200)).astype(np.float16), np.array([[1.1, 0.9], [0.8, 1.0]], np.float32)
    asked = torch.from_numpy(hu.astype(np.float32)).requires_grad_()
    mine = OnnxGraph(SHIPPED)(asked, torch.from_numpy(spacing))
    served = OnnxModel(SHIPPED)(hu, spacing)
    for one, other in zip(mine, served, strict=True):
        assert np.abs(one.detach().numpy() - other).max() < 1e-5
    mine[0][:, 0].sum().backward()
    assert asked.grad is not None
    assert float(asked.grad.abs().sum()) > 0


def test_the_segmentation_lies_on_planted_lesions(planted: Planted, network: Network) -> None:
    """Far more than chance, on most slices."""
    answers = [network.answers(one.hu[None], one.spacing_mm)[1][0] for one, _, _ in planted]
    heats = [methods.segmentation(p[0], a, network.grid, None) for p, a in zip(planted, answers, strict=True)]
    assert np.median(gains(heats, planted)) > 5


def test_grad_cam_lies_on_planted_lesions(planted: Planted, subject: Subject) -> None:
    """Several times more than chance in the median, and above chance on nearly all."""
    told = gains([methods.gradcam(subject, one, 0) for one, _, _ in planted], planted)
    assert np.median(told) > 4
    assert (told > 1).mean() >= 0.8


def test_integrated_gradients_lie_on_planted_lesions(planted: Planted, subject: Subject) -> None:
    """Several times more than chance in the median, and above chance on nearly all."""
    told = gains([methods.integrated_gradients(subject, one, 0) for one, _, _ in planted], planted)
    assert np.median(told) > 2
    assert (told > 1).mean() >= 0.8


def test_an_untrained_network_does_not_point_at_the_lesion(planted: Planted, tmp_path: Path, subject: Subject) -> None:
    """What the tests above ask is not in the method or the picture but in the trained weights."""
    torch.manual_seed(3)
    torch.save({"average": Trunk((8, 12, 16, 20)).state_dict()}, tmp_path / "fresh.pt")
    fresh = subject_of_checkpoint(tmp_path / "fresh.pt")
    told = gains([methods.gradcam(fresh, one, 0) for one, _, _ in planted], planted)
    trained = gains([methods.gradcam(subject, one, 0) for one, _, _ in planted], planted)
    assert np.median(told) < 0.5 * np.median(trained)


def test_shapley_values_need_no_gradient_and_favour_the_lesion(planted: Planted, network: Network) -> None:
    """For graphs that cannot be followed: where the lesions are largest, their regions speak more, as a rule."""
    largest = sorted(planted, key=lambda p: p[2])[-3:]

    def shapley(one: Slice) -> Heat:
        return methods.shapley(lambda hu: logit(network.answers(hu, one.spacing_mm)[0][:, 0]), one)

    told = gains([shapley(one) for one, _, _ in largest], largest)
    assert told.mean() > 1.3
    assert np.median(told) > 1


def test_a_quantised_graph_is_followed_too(tmp_path: Path) -> None:
    """Quantise and dequantise around a product: the same numbers as ONNX Runtime, and a gradient."""
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
            helper.make_node("MatMul", ["d", "w"], ["y"]),
        ],
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 1])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [0.05]),
            helper.make_tensor("zero", TensorProto.INT8, [], [3]),
            helper.make_tensor("w", TensorProto.FLOAT, [3, 1], [1.0, -2.0, 0.5]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    onnx.save(model, tmp_path / "q.onnx")
    x = torch.tensor([[0.31, -0.77, 2.0], [99.0, 0.0, -0.02]], requires_grad=True)
    (mine,) = OnnxGraph(tmp_path / "q.onnx")(x)
    import onnxruntime

    (served,) = onnxruntime.InferenceSession(tmp_path / "q.onnx").run(None, {"x": x.detach().numpy()})
    assert mine.detach().numpy() == pytest.approx(served, abs=1e-5)
    mine.sum().backward()
    assert x.grad is not None
    assert x.grad[0].tolist() == pytest.approx([1.0, -2.0, 0.5])


def test_an_operator_without_a_gradient_is_told_with_its_file(tmp_path: Path) -> None:
    """The sentence names both; so does the one of a file that is no graph, and of a checkpoint that is none."""
    values = [
        helper.make_tensor_value_info(n, k, None) for n, k in (("x", TensorProto.FLOAT), ("y", TensorProto.INT64))
    ]
    model = helper.make_model(
        helper.make_graph([helper.make_node("NonZero", ["x"], ["y"])], "g", values[:1], values[1:])
    )
    onnx.save(model, tmp_path / "odd.onnx")
    (tmp_path / "text.onnx").write_text("x", "utf-8")
    torch.save({"average": {"other": torch.zeros(1)}}, tmp_path / "other.pt")
    for call, name, word in (
        (subject_of_onnx, "odd.onnx", "NonZero"),
        (subject_of_onnx, "text.onnx", "not an ONNX model"),
        (subject_of_checkpoint, "text.onnx", "not a checkpoint"),
        (subject_of_checkpoint, "other.pt", "no weights"),
    ):
        with pytest.raises(NotExplainable, match=word) as told:
            call(tmp_path / name)
        assert name in str(told.value)


def test_the_command_writes_a_picture_beside_the_slice(planted: Planted, tmp_path: Path) -> None:
    """One panel for the slice and one for each method; probabilities and the notice are told."""
    one, _, _ = planted[0]
    file = data_cases.write(tmp_path / "slice.dcm", data_cases.image(one.hu, PixelSpacing=list(one.spacing_mm)))
    words = ["explain", str(file), "--out", str(tmp_path / "told.png"), "--label", "any"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Not for diagnosis; trained on synthetic data." in done.stdout
    width, height = Image.open(tmp_path / "told.png").size
    assert width > 3 * height
    assert "subarachnoid" in done.stdout
    scope = CliRunner().invoke(app, [*words[:-2], "--method", "segmentation"])
    assert ("out of scope" in scope.stderr) is (max(one.spacing_mm) > 1.2)


@pytest.mark.parametrize(
    ("tags", "word"),
    [({"Modality": "MR"}, "not CT"), ({"PixelSpacing": None}, "PixelSpacing"), ({"RescaleSlope": None}, "no HU")],
)
def test_what_cannot_be_explained_is_a_sentence_with_the_file(tags: dict[str, Any], word: str, tmp_path: Path) -> None:
    """No traceback: exit code 1 and what is missing."""
    hu = np.full((160, 160), 30, np.int16)
    file = data_cases.write(tmp_path / "slice.dcm", data_cases.image(hu, **tags))
    done = CliRunner().invoke(app, ["explain", str(file)])
    assert done.exit_code == 1
    assert word in done.stderr
    assert "slice.dcm" in done.stderr
    assert CliRunner().invoke(app, ["explain", str(file), "--method", "guess"]).exit_code == 2


@pytest.mark.parametrize(("name", "word"), [("slice.dcm", "no .png"), ("nowhere/told.png", "no folder")])
def test_a_picture_goes_where_pictures_go(name: str, word: str, tmp_path: Path) -> None:
    """Never over a scan, and a folder that is not there is told before the work."""
    file = data_cases.write(tmp_path / "slice.dcm", data_cases.image(np.full((160, 160), 30, np.int16)))
    before = file.read_bytes()
    done = CliRunner().invoke(app, ["explain", str(file), "--out", str(tmp_path / name)])
    assert done.exit_code == 2
    assert word in " ".join(done.stderr.replace("│", " ").split())
    assert file.read_bytes() == before
