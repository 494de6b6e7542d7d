"""Any exported graph as a reader: HU and spacing in, probabilities and segmentation out (contracts.tensors)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from contracts.errors import TriageError
from contracts.tensors import HEAD_CT_LESION, HU_HIGH, HU_LOW
from training.data.study import Study
from training.evaluation.brain_in import BrainMask
from training.evaluation.grid import MARKED_FROM, Grid, centres_mm, measured, on_slice, packed
from training.evaluation.measure import Numbers
from training.evaluation.reading import LABELS, Reading, positions_of
from training.evaluation.verdict import SliceMeasures
from training.onnx_in import OnnxModel

BATCH = 8


class BadModel(TriageError):
    """A file that is no model of ours; the sentence names it."""


class Network:
    """The graph, run slice by slice as it is served; with the brain mask beside it, as scoring asks it, if given."""

    def __init__(self, file: Path, name: str = "network", mask: BrainMask | None = None) -> None:
        """Read the graph and its operating points.

        Raises:
            BadModel: not an ONNX graph with the contracted tensors, or without what its outputs mean.
        """
        self.file = file
        self.name = name
        self._mask = mask
        self.model = _opened(file)
        self.trained_on = self.model.metadata.get("trained_on", "")
        self.grid = _grid(file, self.model.metadata)
        self.thresholds: Mapping[str, float] = _thresholds(file, self.model.metadata)

    def answers(self, hu: NDArray[np.generic], spacing_mm: tuple[float, float]) -> tuple[Numbers, NDArray[np.float32]]:
        """Slices (n, H, W) → (n, 6), (n, 5, S, S)."""
        found = []
        for at in range(0, len(hu), BATCH):
            part = as_served(hu[at : at + BATCH])
            found.append(self.model(part, np.tile(np.array(spacing_mm, np.float32), (len(part), 1))))
        probabilities, segmentation = (np.concatenate(one) for one in zip(*found, strict=True))
        return probabilities.astype(np.float64), segmentation

    def read(self, study: Study) -> Reading:
        """Areas and centroids on the served grid, as scoring measures them; marks on the study's own pixels."""
        slices = [one for at in range(0, len(study.hu), BATCH) for one in self._batch(study, at)]
        names = ("probabilities", "areas_mm2", "outside_mm2", "centroids_mm")
        told = {name: np.array([getattr(one, name) for one in slices]) for name in names}
        position_mm, thickness_mm = positions_of(study)
        measures = SliceMeasures(**told, position_mm=position_mm, thickness_mm=thickness_mm)
        return Reading(measures, np.stack([one.marks for one in slices]), np.array([one.refused for one in slices]))

    def _batch(self, study: Study, at: int) -> list[_Slice]:
        spacing_mm, hu = (study.spacing_mm[1], study.spacing_mm[2]), study.hu[at : at + BATCH]
        answered = zip(*self.answers(hu, spacing_mm), as_served(hu), centres_mm(hu, spacing_mm), strict=True)
        return [self._slice(*one, spacing_mm) for one in answered]

    def _slice(
        self,
        probabilities: Numbers,
        values: NDArray[np.float32],
        hu: NDArray[np.float16],
        centre_mm: Numbers,
        spacing_mm: tuple[float, float],
    ) -> _Slice:
        marked = values >= MARKED_FROM
        inside: NDArray[np.bool_] | None = np.ones(marked.shape[1:], bool)
        if self._mask is not None:
            inside = self._mask.inside(hu, spacing_mm, self.grid, marked=bool(marked.any()))
        refused = inside is None
        if inside is None:
            inside, probabilities = np.zeros(marked.shape[1:], bool), np.zeros_like(probabilities)
        area, centroid = _measures(marked & inside, self.grid)
        outside = np.zeros_like(area) if refused else _measures(marked & ~inside, self.grid)[0]
        laid = on_slice(values * inside, self.grid, centre_mm, spacing_mm, (hu.shape[0], hu.shape[1]))
        return _Slice(probabilities, area, outside, centroid, packed(laid >= MARKED_FROM), refused)


@dataclass(frozen=True, eq=False)
class _Slice:
    """One row of a reading."""

    probabilities: Numbers
    areas_mm2: Numbers
    outside_mm2: Numbers
    centroids_mm: Numbers
    marks: NDArray[np.uint8]
    refused: bool


def as_served(hu: NDArray[np.generic]) -> NDArray[np.float16]:
    """What scoring sends."""
    return np.clip(hu, HU_LOW, HU_HIGH).astype(np.float16)


def _measures(marked: NDArray[np.bool_], grid: Grid) -> tuple[Numbers, Numbers]:
    """Of *any* (the union of the channels) and each kind."""
    return measured(np.concatenate([marked.any(0, keepdims=True), marked]), (grid.pitch_mm, grid.pitch_mm))


def _opened(file: Path) -> OnnxModel:
    try:
        model = OnnxModel(file)
    except Exception as problem:  # ONNX Runtime raises many kinds of its own, none with a common parent
        raise BadModel(f"{file}: not an ONNX model that ONNX Runtime can run ({_first_line(problem)})") from problem
    told = [one.name for one in model.session.get_inputs()], [one.name for one in model.session.get_outputs()]
    wanted = [one.name for one in HEAD_CT_LESION.inputs], [one.name for one in HEAD_CT_LESION.outputs]
    if told != wanted:
        raise BadModel(f"{file}: its tensors are {told[0]} → {told[1]}; served are {wanted[0]} → {wanted[1]}")
    return model


def _first_line(problem: Exception) -> str:
    return (str(problem).splitlines() or [type(problem).__name__])[0]


def _grid(file: Path, metadata: Mapping[str, str]) -> Grid:
    try:
        return Grid(int(metadata["grid_size"]), float(metadata["grid_pitch_mm"]))
    except (KeyError, ValueError) as problem:
        raise BadModel(f"{file}: its metadata do not say grid_size and grid_pitch_mm") from problem


def _thresholds(file: Path, metadata: Mapping[str, str]) -> Mapping[str, float]:
    try:
        return {label: float(metadata[f"threshold.{label}"]) for label in LABELS}
    except (KeyError, ValueError) as problem:
        raise BadModel(f"{file}: its metadata do not say threshold.<label> for each label") from problem


def runtime_version() -> str:
    """For the report."""
    return f"ONNX Runtime {onnxruntime.__version__}"
