"""Triton's Python backend: the exported graph in ONNX Runtime, one thread per instance (configs/cpu.pbtxt)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Member = tuple[int, NDArray[np.float16], NDArray[np.float32]]  # place in the batch, HU, PIXEL_SPACING

SMALLEST_SIDE, LARGEST_SIDE = 64, 1024  # what the graph was exported for


class TritonPythonModel:
    """One instance; requests of a batch that share a matrix size run as one ONNX batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx from beside this file."""
        config = json.loads(args["model_config"])
        self.largest_batch = max(1, int(config["max_batch_size"]))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order; a request at fault gets an error and harms no other."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[int, ...], list[Member]] = {}
        for nth, request in enumerate(requests):
            hu = pb_utils.get_input_tensor_by_name(request, "HU").as_numpy()
            spacing = pb_utils.get_input_tensor_by_name(request, "PIXEL_SPACING").as_numpy()
            fault = fault_of(hu, spacing)
            if fault:
                responses[nth] = failed(fault)
            else:
                groups.setdefault(hu.shape[1:], []).append((nth, hu, spacing))
        for members in groups.values():
            self._answer(members, responses)
        return responses

    def _answer(self, members: list[Member], responses: list[Any]) -> None:
        try:
            hu = np.concatenate([hu for _, hu, _ in members])
            spacing = np.concatenate([spacing for _, _, spacing in members])
            probabilities, segmentation = self.session.run(None, {"HU": hu, "PIXEL_SPACING": spacing})
        except Exception as fault:  # noqa: BLE001  # whatever the runtime raises, every waiting request must get an answer
            for nth, _, _ in members:
                responses[nth] = failed(f"inference failed: {fault}")
            return
        at = 0
        for nth, hu, _ in members:
            part = slice(at, at + len(hu))
            at += len(hu)
            responses[nth] = pb_utils.InferenceResponse(
                [
                    pb_utils.Tensor("PROBABILITIES", np.ascontiguousarray(probabilities[part])),
                    pb_utils.Tensor("SEGMENTATION", np.ascontiguousarray(segmentation[part])),
                ]
            )


def fault_of(hu: NDArray[np.float16], spacing: NDArray[np.float32]) -> str | None:
    """A sentence for the caller, or None."""
    if hu.ndim != len("NHW") or not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in hu.shape[1:]):
        return f"HU must be [N, H, W] with sides {SMALLEST_SIDE}…{LARGEST_SIDE}, got {list(hu.shape)}"
    if spacing.shape != (len(hu), 2) or not np.isfinite(spacing).all() or (spacing <= 0).any():
        return "PIXEL_SPACING must be [N, 2] positive millimetres"
    if not np.isfinite(hu).all():
        return "HU holds values that are not finite"
    return None


def failed(sentence: str) -> Any:
    """An error response."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(sentence))
