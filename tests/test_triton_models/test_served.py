"""The real Triton serves the committed model through its CPU configuration."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.grpc import InferenceServerClient, InferInput, InferResult
from tritonclient.utils import InferenceServerException

from launch.phantom_in import shipped_heads
from launch.stack.triton_server import TritonServer
from training.onnx_in import OnnxModel
from training.serving.samples_in import REAL_HEAD, REAL_OTHERS, real_slices
from training.serving.session_in import Slices, slice_feed
from training.serving.verify_call import verified

NAME = "head_ct_lesion"
FILE = Path(__file__).parents[2] / "triton_models" / NAME / "1" / "model.onnx"
TIMEOUT_S = 60.0

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def client(triton: TritonServer) -> InferenceServerClient:
    """One gRPC client."""
    return InferenceServerClient(triton.grpc)


def asked(
    client: InferenceServerClient, hu: NDArray[np.float16], spacing: NDArray[np.float32], priority: int = 0
) -> InferResult:
    """One inference."""
    inputs = [InferInput("HU", list(hu.shape), "FP16"), InferInput("PIXEL_SPACING", list(spacing.shape), "FP32")]
    inputs[0].set_data_from_numpy(hu)
    inputs[1].set_data_from_numpy(spacing)
    return client.infer(NAME, inputs, priority=priority, client_timeout=TIMEOUT_S)


def slices(batch: int, side: int, seed: int = 0) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    """Noise of CT-like density."""
    rng = np.random.default_rng(seed)
    return rng.normal(20, 200, (batch, side, side)).astype(np.float16), np.full((batch, 2), 0.5, np.float32)


@pytest.mark.parametrize(("batch", "side"), [(1, 512), (4, 512), (1, 256), (16, 128)])
def test_triton_answers_as_onnx_runtime_does(client: InferenceServerClient, batch: int, side: int) -> None:
    """What is served is what was exported and evaluated."""
    hu, spacing = slices(batch, side)
    result = asked(client, hu, spacing)
    probabilities, segmentation = OnnxModel(FILE)(hu, spacing)
    np.testing.assert_allclose(result.as_numpy("PROBABILITIES"), probabilities, atol=1e-5)
    np.testing.assert_allclose(result.as_numpy("SEGMENTATION"), segmentation, atol=1e-5)


def heads() -> Slices:
    """A real head CT, a real trunk, and a slice of the demo's bleeding phantom: HU and pitch in mm."""
    phantom = next(head for head in shipped_heads() if head.lesion)
    bleeding = max(range(len(phantom.hu)), key=lambda nth: phantom.labels_by_slice[nth][0])
    return [*real_slices((REAL_HEAD, *REAL_OTHERS)), (phantom.hu[bleeding].astype(np.float32), phantom.pitch_mm)]


def test_triton_answers_as_onnx_runtime_does_on_heads(client: InferenceServerClient) -> None:
    """Not on noise alone: what a scanner made, and a phantom."""
    for hu, pitch_mm in heads():
        feed = slice_feed(hu, pitch_mm)
        result = asked(client, feed["HU"], feed["PIXEL_SPACING"])
        probabilities, segmentation = OnnxModel(FILE)(feed["HU"], feed["PIXEL_SPACING"])
        np.testing.assert_allclose(result.as_numpy("PROBABILITIES"), probabilities, atol=1e-5)
        np.testing.assert_allclose(result.as_numpy("SEGMENTATION"), segmentation, atol=1e-5)


def test_mixed_sizes_and_priorities_at_once_get_each_its_own_answer(client: InferenceServerClient) -> None:
    """Dynamic batching never mixes up requests, whatever their size or lane."""
    model = OnnxModel(FILE)
    wanted = [(*slices(1, side, seed), priority) for seed, (side, priority) in enumerate(((256, 1), (320, 2)) * 6)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda one: asked(client, *one), wanted))
    for (hu, spacing, _), result in zip(wanted, results, strict=True):
        np.testing.assert_allclose(result.as_numpy("PROBABILITIES"), model(hu, spacing)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("hu", "spacing"),
    [
        (np.zeros((1, 16, 16), np.float16), np.full((1, 2), 0.5, np.float32)),
        (np.zeros((1, 2048, 64), np.float16), np.full((1, 2), 0.5, np.float32)),
        (np.zeros((1, 128, 128), np.float16), np.zeros((1, 2), np.float32)),
        (np.full((1, 128, 128), np.nan, np.float16), np.full((1, 2), 0.5, np.float32)),
    ],
    ids=["too small", "too large", "no spacing", "not finite"],
)
def test_an_impossible_request_gets_an_error_and_the_model_lives_on(
    client: InferenceServerClient, hu: NDArray[np.float16], spacing: NDArray[np.float32]
) -> None:
    """A wrong request is told so; the next one is answered."""
    with pytest.raises(InferenceServerException, match=r"HU|PIXEL_SPACING"):
        asked(client, hu, spacing)
    assert asked(client, *slices(1, 128)).as_numpy("PROBABILITIES").shape == (1, 6)


def test_operating_points_are_in_the_served_configuration(client: InferenceServerClient) -> None:
    """Scoring reads thresholds, grid and provenance from the server it asks."""
    parameters = client.get_model_config(NAME).config.parameters
    served = {key: value.string_value for key, value in parameters.items()}
    assert served == OnnxModel(FILE).metadata


@pytest.mark.parametrize("name", ["head_ct_lesion", "brain_mask"])
def test_verify_finds_every_shipped_model_sound_through_the_server(triton: TritonServer, name: str) -> None:
    """`triage models verify NAME --triton URL`: contract, operators, files, and parity on real and drawn slices."""
    checks = verified(FILE.parents[2] / name, None, triton.grpc)
    assert all(check.passed for check in checks), [check for check in checks if not check.passed]
    assert "ONNX Runtime ↔ Triton" in checks[-1].told
