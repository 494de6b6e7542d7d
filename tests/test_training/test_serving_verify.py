"""`triage models verify --triton`: how far a server may be off depends on what it runs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # no stubs
import numpy as np
import pytest
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from training.serving.session_in import answers, session
from training.serving.verify_call import PLAN, verified

MODEL = Path(__file__).parents[2] / "triton_models" / "brain_mask"
KINDS = {"FP16": np.float16, "FP32": np.float32}


class OffServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Speaks Triton's protocol, says which engine it runs, and answers as ONNX Runtime does but for ``off``."""

    def __init__(self) -> None:
        self.platform, self.off = "", 0.0
        self._running = session(MODEL / "1" / "model.onnx")

    def ModelConfig(self, request: Any, _context: Any) -> Any:  # noqa: N802  # the protocol's
        """The engine."""
        config = model_config_pb2.ModelConfig(name=request.name, platform=self.platform, backend="python")
        return service_pb2.ModelConfigResponse(config=config)

    def ModelInfer(self, request: Any, _context: Any) -> Any:  # noqa: N802  # as above
        """The answers."""
        raw = zip(request.inputs, request.raw_input_contents, strict=True)
        feed = {one.name: np.frombuffer(told, KINDS[one.datatype]).reshape(list(one.shape)) for one, told in raw}
        reply = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        for name, value in answers(self._running, feed).items():
            reply.outputs.add(name=name, datatype="FP32", shape=value.shape)
            reply.raw_output_contents.append((value + np.float32(self.off)).tobytes())
        return reply


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[OffServer, str]]:
    """The server and its address."""
    made, listening = OffServer(), grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(made, listening)
    port = listening.add_insecure_port("127.0.0.1:0")
    listening.start()
    yield made, f"127.0.0.1:{port}"
    listening.stop(None)


@pytest.mark.parametrize(
    ("platform", "off", "passes"), [(PLAN, 5e-3, True), (PLAN, 5e-2, False), ("", 5e-3, False), ("", 1e-6, True)]
)
def test_a_plan_may_be_off_by_what_fp16_costs_and_no_other_server(
    server: tuple[OffServer, str],
    platform: str,
    off: float,
    passes: bool,  # noqa: FBT001  # the cases
) -> None:
    """Triton's own word for the engine decides; the allowance stands beside the difference."""
    server[0].platform, server[0].off = platform, off
    last = verified(MODEL, None, server[1])[-1]
    assert last.passed == passes
    assert f"{'0.02' if platform else '0.0001'} allowed of {platform or 'python'}" in last.told
