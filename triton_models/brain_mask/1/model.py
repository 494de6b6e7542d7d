"""Triton's Python backend: the version's graph in ONNX Runtime, one thread per instance (configs/cpu.pbtxt).

One file for every model: it is copied beside each graph as model.py. Tensors are those of the model's configuration.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

Feed = dict[str, NDArray[Any]]
Member = tuple[int, Feed]  # place in Triton's batch, inputs

SMALLEST_SIDE, LARGEST_SIDE = 64, 1024  # what graphs that take native HU were exported for


class TritonPythonModel:
    """One instance; requests of a batch that share their shapes run as one ONNX batch."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load model.onnx from the version's folder, beside this file."""
        config = json.loads(args["model_config"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.batched = int(config["max_batch_size"]) > 0
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order; a request at fault gets an error and harms no other."""
        responses: list[Any] = [None] * len(requests)
        groups: dict[tuple[Any, ...], list[Member]] = {}
        for nth, request in enumerate(requests):
            feed = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            fault = fault_of(feed)
            if fault:
                responses[nth] = failed(fault)
            else:
                shapes = tuple(value.shape[1:] for value in feed.values()) if self.batched else (nth,)
                groups.setdefault(shapes, []).append((nth, feed))
        for members in groups.values():
            self._answer(members, responses)
        return responses

    def _answer(self, members: list[Member], responses: list[Any]) -> None:
        try:
            joined = {name: np.concatenate([feed[name] for _, feed in members]) for name in self.inputs}
            answers = self.session.run(self.outputs, joined)
        except Exception as fault:  # noqa: BLE001  # whatever the runtime raises, every waiting request must get an answer
            for nth, _ in members:
                responses[nth] = failed(f"inference failed: {fault}")
            return
        at = 0
        for nth, feed in members:
            part = slice(at, at + len(feed[self.inputs[0]])) if self.batched else slice(None)
            at = part.stop or 0
            named = zip(self.outputs, answers, strict=True)
            responses[nth] = pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, np.ascontiguousarray(answer[part])) for name, answer in named]
            )


def fault_of(feed: Feed) -> str | None:
    """A sentence for the caller, or None."""
    hu, spacing = feed.get("HU"), feed.get("PIXEL_SPACING")
    if hu is not None and (
        hu.ndim != len("NHW") or not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in hu.shape[1:])
    ):
        return f"HU must be [N, H, W] with sides {SMALLEST_SIDE}…{LARGEST_SIDE}, got {list(hu.shape)}"
    if spacing is not None and (
        hu is None or spacing.shape != (len(hu), 2) or not np.isfinite(spacing).all() or (spacing <= 0).any()
    ):
        return "PIXEL_SPACING must be [N, 2] positive millimetres"
    for name, value in feed.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return f"{name} holds values that are not finite"
    return None


def failed(sentence: str) -> Any:
    """An error response."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(sentence))
