"""Preprocessing inside the graph, the exported graph beside PyTorch."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.evaluation.calibration import Calibrated
from training.networks.student import Served, Trunk
from training.onnx_in import OnnxModel
from training.phantom.render import LABELS
from training.preprocess import GRID_PITCH_MM, GRID_SIZE, ServedGrid
from training.serving.export_out import export, parameters_of

WIDTHS = (8, 8, 12, 16)
CALIBRATED = Calibrated((1.0,) * 6, (0.0,) * 6, dict.fromkeys(LABELS, 0.5))


def disc(rows: int, columns: int, spacing_mm: tuple[float, float], centre_mm: tuple[float, float]) -> torch.Tensor:
    """Water (0 HU) in a disc of 70 mm radius, a denser one of 20 mm to its right, air around."""
    y = torch.arange(rows)[:, None] * spacing_mm[0] - centre_mm[0]
    x = torch.arange(columns)[None] * spacing_mm[1] - centre_mm[1]
    image = torch.where(y**2 + x**2 < 70**2, 0.0, -1000.0)
    return torch.where(y**2 + (x - 30) ** 2 < 20**2, 60.0, image)[None]


def on_grid(image: torch.Tensor, spacing_mm: tuple[float, float]) -> torch.Tensor:
    """The served grid of one image."""
    return ServedGrid()(image.half(), torch.tensor([spacing_mm]))[0]


@pytest.mark.parametrize(
    ("rows", "columns", "spacing_mm"),
    [(256, 256, (0.9, 0.9)), (768, 768, (0.3, 0.3)), (512, 400, (0.45, 0.6)), (300, 512, (0.8, 0.45))],
)
def test_the_same_object_looks_the_same_whatever_the_matrix(
    rows: int, columns: int, spacing_mm: tuple[float, float]
) -> None:
    """Matrix size and (non-square) spacing are taken out by the grid; only edges may differ a little."""
    middle = (rows * spacing_mm[0] / 2, columns * spacing_mm[1] / 2)
    found = on_grid(disc(rows, columns, spacing_mm, middle), spacing_mm)
    expected = on_grid(disc(512, 512, (0.45, 0.45), (115.2, 115.2)), (0.45, 0.45))
    assert (found - expected).abs().median() < 1
    assert ((found - expected).abs() < 60).float().mean() > 0.97


def test_an_off_centre_patient_is_centred() -> None:
    """The grid follows the body's centroid: 30 mm off-centre gives the same samples, to a pixel's rounding."""
    middle = on_grid(disc(512, 512, (0.5, 0.5), (128, 128)), (0.5, 0.5))
    moved = on_grid(disc(512, 512, (0.5, 0.5), (98, 143)), (0.5, 0.5))
    assert ((middle - moved).abs() < 60).float().mean() > 0.97


def test_outside_the_image_is_air_and_hu_keep_their_value() -> None:
    """A small field of view is surrounded by −1000 HU; inside, resampling keeps densities to a tenth of a HU."""
    found = on_grid(torch.full((1, 128, 128), 40.0), (0.5, 0.5))
    assert found[0, 0] == -1000
    half = GRID_SIZE // 2
    assert abs(float(found[half, half]) - 40) < 0.1
    assert abs(float((found > -500).sum()) * GRID_PITCH_MM**2 - 64**2) < 300


def test_padding_below_the_ct_range_is_air() -> None:
    """Padding of −2000 HU must not outweigh the body."""
    image = torch.full((1, 256, 256), -2000.0)
    image[:, 64:192, 64:192] = 40.0
    assert float(on_grid(image, (0.9, 0.9)).min()) >= -1025


@pytest.fixture(scope="module")
def exported_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Served, Path]:
    """An untrained network and its ONNX file."""
    torch.manual_seed(1)
    served = Served(Trunk(WIDTHS)).eval()
    file = tmp_path_factory.mktemp("onnx") / "model.onnx"
    export(served, parameters_of(CALIBRATED), file)
    return served, file


@pytest.fixture(scope="module")
def exported(exported_file: tuple[Served, Path]) -> tuple[Served, OnnxModel]:
    """The network, and its graph in ONNX Runtime."""
    return exported_file[0], OnnxModel(exported_file[1])


def test_export_leaves_no_trace_of_the_machine(exported_file: tuple[Served, Path]) -> None:
    """The exporter's stack traces and paths are not part of a model."""
    written = exported_file[1].read_bytes()
    assert b"site-packages" not in written
    assert str(Path.cwd()).encode() not in written


@pytest.mark.parametrize(
    ("batch", "rows", "columns"), [(1, 256, 256), (4, 512, 512), (1, 768, 768), (4, 300, 420), (16, 128, 128)]
)
def test_the_exported_graph_answers_as_pytorch_does(
    exported: tuple[Served, OnnxModel], batch: int, rows: int, columns: int
) -> None:
    """Any batch and matrix size: ONNX Runtime and PyTorch agree to 1e-4."""
    served, model = exported
    rng = np.random.default_rng(0)
    hu = rng.normal(30, 200, (batch, rows, columns)).astype(np.float16)
    spacing = rng.uniform(0.4, 0.9, (batch, 2)).astype(np.float32)
    probabilities, segmentation = model(hu, spacing)
    with torch.no_grad():
        expected = served(torch.from_numpy(hu), torch.from_numpy(spacing))
    assert probabilities.shape == (batch, 6)
    assert segmentation.shape == (batch, 5, GRID_SIZE, GRID_SIZE)
    np.testing.assert_allclose(probabilities, expected[0].numpy(), atol=1e-4)
    np.testing.assert_allclose(segmentation, expected[1].numpy(), atol=1e-4)


def test_a_slice_is_answered_the_same_alone_and_in_a_batch(exported: tuple[Served, OnnxModel]) -> None:
    """Dynamic batching must not change an answer."""
    _, model = exported
    rng = np.random.default_rng(2)
    hu = rng.normal(30, 200, (4, 256, 256)).astype(np.float16)
    spacing = rng.uniform(0.4, 0.9, (4, 2)).astype(np.float32)
    together = model(hu, spacing)[0]
    alone = np.concatenate([model(hu[n : n + 1], spacing[n : n + 1])[0] for n in range(4)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
