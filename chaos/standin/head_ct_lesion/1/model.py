# ruff: noqa: INP001 — Triton's layout, not a package
"""Triton's Python backend around the stand-in's rule (chaos/bright_block.py), in the mood that a file names."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from chaos.bright_block import answers, spoilt
from chaos.scenario import Mood

MOOD_FILE = "CHAOS_MOOD_FILE"  # environment variable: a file that holds a word of Mood
SLOW_S = 0.25  # an image
LOOK_S = 0.05  # a hanging model looks that often whether its mood has changed


class TritonPythonModel:
    """One instance; the mood is read anew for every batch."""

    def initialize(self, _args: dict[str, str]) -> None:
        """Without a mood file it does not serve: a rig that cannot change the mood is none."""
        self.file = Path(os.environ[MOOD_FILE])
        self.server = os.getppid()
        self._mood()

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, in order."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        while (mood := self._mood()) is Mood.HANG and os.getppid() == self.server:  # never an orphan that hangs on
            time.sleep(LOOK_S)
        hu = pb_utils.get_input_tensor_by_name(request, "HU").as_numpy()
        spacing = pb_utils.get_input_tensor_by_name(request, "PIXEL_SPACING").as_numpy()
        if mood is Mood.SLOW:
            time.sleep(SLOW_S * len(hu))
        probabilities, segmentation = spoilt(answers(hu, spacing), mood)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("PROBABILITIES", np.ascontiguousarray(probabilities)),
                pb_utils.Tensor("SEGMENTATION", np.ascontiguousarray(segmentation)),
            ]
        )

    def _mood(self) -> Mood:
        return Mood(self.file.read_text(encoding="ascii").strip())
