"""From a model's answer to measures: probability, area at the operating point, centroid. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contracts.errors import NotAnalysable
from contracts.findings import Label, Measure
from contracts.reasons import Reason

AREA_THRESHOLD = 0.5  # of a segmentation sample: it is a probability of its own, not the image's
_ROUNDING = 1e-3  # FP16 engines may end a hair outside 0…1


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What the inference server says of a model: its labels and operating points, the pitch of its grid in mm."""

    name: str
    version: str
    labels: tuple[Label, ...]
    thresholds: Mapping[Label, float]
    grid_pitch_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """``probabilities`` (labels,), ``segmentation`` (labels − 1, rows, columns): all 0…1.

    A model without labels marks an organ: no probabilities, and one channel.
    """

    probabilities: NDArray[np.float32]
    segmentation: NDArray[np.float32]
    model: ServedModel


def checked(answer: Answer) -> Answer:
    """The answer, within 0…1. Raises NotAnalysable (MODEL_ANSWER_INVALID) for any other shape or value."""
    labels = len(answer.model.labels)
    if answer.probabilities.shape != (labels,):
        raise _invalid(f"PROBABILITIES {answer.probabilities.shape}")
    channels = labels - 1 if labels else 1
    if answer.segmentation.ndim != 3 or answer.segmentation.shape[0] != channels or not answer.segmentation.size:  # noqa: PLR2004 (channel, row, column)
        raise _invalid(f"SEGMENTATION {answer.segmentation.shape}")
    return Answer(_unit(answer.probabilities), _unit(answer.segmentation), answer.model)


def measures_of(answer: Answer, inside: NDArray[np.bool_] | None = None) -> dict[Label, Measure]:
    """One measure for each label; ``ANY`` covers the union of all segmentation channels.

    Where ``inside`` (rows, columns) is given, area is what lies in it, and the rest is told as outside.
    """
    masks = answer.segmentation >= AREA_THRESHOLD
    counted = masks if inside is None else masks & inside
    told = zip(answer.model.labels, answer.probabilities, (None, *range(len(masks))), strict=True)
    return {
        label: _measure(
            float(probability),
            answer.model.thresholds[label],
            _channel(counted, at),
            int(_channel(masks, at).sum()),
            answer.model.grid_pitch_mm,
        )
        for label, probability, at in told
    }


def found_something(answer: Answer) -> bool:
    """Whether any label is at its operating point and marked somewhere: then it matters where that lies."""
    positive = any(
        p >= answer.model.thresholds[m] for m, p in zip(answer.model.labels, answer.probabilities, strict=True)
    )
    return positive and bool((answer.segmentation >= AREA_THRESHOLD).any())


def _channel(masks: NDArray[np.bool_], at: int | None) -> NDArray[np.bool_]:
    union: NDArray[np.bool_] = masks.any(axis=0) if at is None else masks[at]
    return union


def _measure(probability: float, threshold: float, mask: NDArray[np.bool_], marked: int, pitch_mm: float) -> Measure:
    rows, columns = mask.sum(axis=1), mask.sum(axis=0)
    samples = int(rows.sum())
    outside_mm2 = (marked - samples) * pitch_mm**2
    if not samples:
        return Measure(probability=probability, threshold=threshold, outside_mm2=outside_mm2)
    centroid = (_centre(rows, samples) * pitch_mm, _centre(columns, samples) * pitch_mm)
    return Measure(
        probability=probability,
        threshold=threshold,
        area_mm2=samples * pitch_mm**2,
        outside_mm2=outside_mm2,
        centroid_mm=centroid,
    )


def _centre(profile: NDArray[np.int64], samples: int) -> float:
    """In samples from the grid's centre, which is the image's (pixel centres, so (n − 1) / 2)."""
    return round(float(profile @ np.arange(len(profile))) / samples - (len(profile) - 1) / 2, 3)


def _unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    if not values.size:
        return values
    low, high = float(values.min()), float(values.max())  # NaN in either if there is one anywhere
    if not (low >= -_ROUNDING and high <= 1.0 + _ROUNDING):
        raise _invalid("a value is not within 0…1")
    return np.clip(values, 0.0, 1.0)


def _invalid(detail: str) -> NotAnalysable:
    return NotAnalysable(Reason.MODEL_ANSWER_INVALID, detail)
