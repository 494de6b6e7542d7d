"""Answers like the real model, except where the first sample (HU) of an image names a fault."""

import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

NAN, SHAPE, ERROR, SLOW, RANGE, INVALID, WORK = 101, 102, 103, 104, 105, 106, 107
SLOW_S = 3.0
WORK_S = 0.1  # of a model that is slower than its images come


class TritonPythonModel:
    """One response a request."""

    def execute(self, requests: list[Any]) -> list[Any]:
        """In order."""
        return [answer(pb_utils.get_input_tensor_by_name(request, "HU").as_numpy()) for request in requests]


def answer(hu: Any) -> Any:
    """The response for one image (1, rows, columns)."""
    fault = int(hu[0, 0, 0])
    if fault == SLOW:
        time.sleep(SLOW_S)
    if fault == WORK:
        time.sleep(WORK_S)
    if fault == ERROR:
        return failed("this image breaks the model", pb_utils.TritonError.INTERNAL)
    if fault == INVALID:
        return failed("this image is not valid", pb_utils.TritonError.INVALID_ARG)
    probabilities = np.full((1, 5 if fault == SHAPE else 6), 1.5 if fault == RANGE else 0.25, dtype=np.float32)
    if fault == NAN:
        probabilities[0, 3] = np.nan
    segmentation = np.zeros((1, 5, 8, 8), dtype=np.float32)
    segmentation[0, 0, 2, 3] = 1.0
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor("PROBABILITIES", probabilities), pb_utils.Tensor("SEGMENTATION", segmentation)]
    )


def failed(sentence: str, code: Any) -> Any:
    """An error response."""
    return pb_utils.InferenceResponse(output_tensors=[], error=pb_utils.TritonError(sentence, code))
