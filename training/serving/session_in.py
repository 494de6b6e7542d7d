"""A graph run as the embedded Triton runs it: ONNX Runtime, one thread, denormals as zero."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contracts.tensors import HU_HIGH, HU_LOW

Feed: TypeAlias = Mapping[str, NDArray[Any]]
Slices: TypeAlias = list[tuple[NDArray[np.float32], float]]  # HU (H, W), pitch in mm


def session(graph: Path | bytes) -> onnxruntime.InferenceSession:
    """Ready to run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # its warnings about constant folding are no one's concern here
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    return onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph), options, providers=["CPUExecutionProvider"]
    )


def answers(running: onnxruntime.InferenceSession, feed: Feed) -> dict[str, NDArray[np.float32]]:
    """Every output by name."""
    names = [output.name for output in running.get_outputs()]
    return dict(zip(names, running.run(names, dict(feed)), strict=True))


def slice_feed(hu: NDArray[Any], pitch_mm: float) -> dict[str, NDArray[Any]]:
    """One slice as scoring sends it: HU FP16 (1, H, W), clipped; PIXEL_SPACING FP32 (1, 2)."""
    pixels = np.clip(hu, HU_LOW, HU_HIGH).astype(np.float16)[None]
    return {"HU": pixels, "PIXEL_SPACING": np.full((1, 2), pitch_mm, np.float32)}
