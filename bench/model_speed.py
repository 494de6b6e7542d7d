"""Slices per second of the served graph on one core, beside an ordinary U-Net measured in the same run.

The anchor is what such a model usually is: four levels, a million parameters, 256 × 256 input, the same ONNX Runtime
and thread count, weights at random (they do not change the work). It is given its input ready-made; ours resamples
native 512 × 512 HU first.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bench.figure import Figure

MODEL = Path(__file__).parents[1] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
AIM_PER_S = 60.0  # issue 5: on one core at the served size; a 200-slice study is scored in under four seconds
WARM_UP, ROUNDS = 3, 30
ANCHOR_ROUNDS = 10
ANCHOR_WIDTHS = (12, 24, 48, 96, 192)
ANCHOR_SIDE = 256


def model_speed() -> list[Figure]:
    """Batch 1 at 512 × 512 (the way of one image), and batch 8."""
    hu = np.random.default_rng(0).normal(20, 200, (8, 512, 512)).astype(np.float16)
    spacing = np.full((8, 2), 0.45, np.float32)
    ours = _session(MODEL.read_bytes())
    anchor = _session(ordinary_unet().SerializeToString())
    anchor_s = _median_s(anchor, {"x": np.zeros((1, 1, ANCHOR_SIDE, ANCHOR_SIDE), np.float32)}, ANCHOR_ROUNDS)
    figures = []
    for batch in (1, 8):
        seconds = _median_s(ours, {"HU": hu[:batch], "PIXEL_SPACING": spacing[:batch]}, ROUNDS // batch + 3)
        note = f"slices/s, one thread, 512×512, batch {batch}, median; anchor: U-Net, {_weights():,} weights, 256×256"
        figures.append(
            Figure(f"model slices per second, batch {batch}", batch / seconds, 1 / anchor_s, AIM_PER_S, note)
        )
    return figures


def _session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _median_s(session: onnxruntime.InferenceSession, feed: dict[str, Any], rounds: int) -> float:
    for _ in range(WARM_UP):
        session.run(None, feed)
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        session.run(None, feed)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def ordinary_unet() -> onnx.ModelProto:
    """Two 3×3 convolutions a level, max pooling, nearest upsampling, skip concatenation."""
    graph = _Graph()
    levels = []
    last, width = "x", 1
    for nth, out in enumerate(ANCHOR_WIDTHS):
        if nth:
            last = graph.node("MaxPool", [last], kernel_shape=[2, 2], strides=[2, 2])
        last = graph.convolution(graph.convolution(last, width, out), out, out)
        levels.append((last, out))
        width = out
    for skip, out in reversed(levels[:-1]):
        scales = graph.weight(np.array([1, 1, 2, 2], np.float32))
        up = graph.node("Resize", [last, "", scales], mode="nearest")
        joined = graph.node("Concat", [up, skip], axis=1)
        last, width = graph.convolution(joined, width + out, out), out
    return graph.model(graph.convolution(last, width, 5))


def _weights() -> int:
    return sum(int(np.prod(w.dims)) for w in ordinary_unet().graph.initializer)


class _Graph:
    """Collects nodes and random weights."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.rng = np.random.default_rng(0)

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def weight(self, values: np.ndarray[Any, Any]) -> str:
        name = f"w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def convolution(self, source: str, inputs: int, outputs: int) -> str:
        weight = self.weight(self.rng.normal(0, 0.05, (outputs, inputs, 3, 3)).astype(np.float32))
        return self.node("Relu", [self.node("Conv", [source, weight], pads=[1, 1, 1, 1])])

    def model(self, last: str) -> onnx.ModelProto:
        shape = [1, 1, ANCHOR_SIDE, ANCHOR_SIDE]
        entry = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        leave = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "unet", [entry], [leave], self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
