"""The exported model, run as the embedded Triton runs it: ONNX Runtime, one thread, denormals as zero."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from training.slices_out import SliceTable

BATCH = 8


class OnnxModel:
    """PROBABILITIES and SEGMENTATION of HU slices."""

    def __init__(self, file: Path) -> None:
        """Load the graph and its metadata."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        self.metadata: dict[str, str] = dict(self.session.get_modelmeta().custom_metadata_map)

    def threshold(self, label: str) -> float:
        """Operating point of a label."""
        return float(self.metadata[f"threshold.{label}"])

    def __call__(
        self, hu: NDArray[np.float16], spacing_mm: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """HU (N, H, W) float16 and (row, column) spacing (N, 2) mm → (N, 6), (N, 5, S, S)."""
        probabilities, segmentation = self.session.run(None, {"HU": hu, "PIXEL_SPACING": spacing_mm})
        return probabilities, segmentation


def score_table(model: OnnxModel, table: SliceTable) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(n, 6) probabilities and (n, 5, S, S) masks at one half, of every slice of a table."""
    probabilities, masks = [], []
    for at in range(0, len(table.hu), BATCH):
        spacing = np.repeat(table.pitch_mm[at : at + BATCH, None], 2, axis=1)
        answer, segmentation = model(table.hu[at : at + BATCH].astype(np.float16), spacing)
        probabilities.append(answer)
        masks.append(segmentation > 0.5)
    return np.concatenate(probabilities).astype(np.float64), np.concatenate(masks)
