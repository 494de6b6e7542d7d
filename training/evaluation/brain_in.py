"""The brain mask beside the network: asked for the same slices as scoring asks it for, and read the same way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.brain.inside import holds_brain, on_grid, roomy
from training.evaluation.grid import Grid
from training.evaluation.rays import blank, surely_head
from training.serving.session_in import Feed, answers, session

SHIPPED_MASK = Path(__file__).parents[2] / "triton_models" / "brain_mask" / "1" / "model.onnx"
Hu = NDArray[np.float16]  # (H, W), as it is served


class BrainMask:
    """An exported organ mask, one slice at a time."""

    def __init__(self, file: Path = SHIPPED_MASK) -> None:
        self._session = session(file)
        self._pitch_mm = float(self._session.get_modelmeta().custom_metadata_map["grid_pitch_mm"])

    def inside(self, hu: Hu, spacing_mm: tuple[float, float], grid: Grid, *, marked: bool) -> NDArray[np.bool_] | None:
        """Where marks count on the network's grid; None: the service refuses the slice.

        A slice that surely is of a head is asked about only where something is `marked`, and is never refused. Tags
        are taken to say that this is a head; where none does, the service refuses more.
        """
        everywhere = np.ones((grid.size, grid.size), bool)
        if blank(hu):
            return None
        sure = surely_head(hu, spacing_mm)
        if sure and not marked:
            return everywhere
        chance = self._chance(hu, spacing_mm)
        if not sure and not holds_brain(chance, self._pitch_mm):
            return None
        return on_grid(roomy(chance, self._pitch_mm), self._pitch_mm, grid.size, grid.pitch_mm)

    def _chance(self, hu: Hu, spacing_mm: tuple[float, float]) -> NDArray[np.float32]:
        feed: Feed = {"HU": hu[None], "PIXEL_SPACING": np.array([spacing_mm], np.float32)}
        return answers(self._session, feed)["MASK"][0, 0]
