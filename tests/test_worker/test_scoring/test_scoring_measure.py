"""From a model's answer to measures: areas, centroids, and what is no valid answer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from contracts.errors import NotAnalysable, PeerRefused
from contracts.findings import Label
from contracts.reasons import Reason
from contracts.tensors import HEAD_CT_LESION
from worker.scoring.measure import Answer, ServedModel, checked, measures_of
from worker.scoring.triton_call import served_model

LABELS = HEAD_CT_LESION.labels
MODEL = ServedModel("head_ct_lesion", "1", LABELS, dict.fromkeys(LABELS, 0.5), grid_pitch_mm=2.0)


def answer(segmentation: NDArray[np.float32] | None = None, probabilities: list[float] | None = None) -> Answer:
    """An answer of a 10 × 10 grid, empty unless told otherwise."""
    grid = np.zeros((5, 10, 10), dtype=np.float32) if segmentation is None else segmentation
    return Answer(np.array(probabilities or [0.1] * 6, dtype=np.float32), grid, MODEL)


def test_area_is_samples_above_threshold_times_pitch_squared() -> None:
    """Six samples of 2 mm are 24 mm², and the overall label covers the union of all channels."""
    grid = np.zeros((5, 10, 10), dtype=np.float32)
    grid[0, 2:4, 3:6] = 0.9
    grid[4, 3:5, 3:6] = 0.6
    grid[1] = 0.49
    measures = measures_of(checked(answer(grid)))
    assert set(measures) == set(LABELS)
    assert measures[Label.INTRAPARENCHYMAL].area_mm2 == 24.0
    assert measures[Label.SUBDURAL_EPIDURAL].area_mm2 == 0.0
    assert measures[Label.MASS].area_mm2 == 24.0
    assert measures[Label.ANY].area_mm2 == 36.0


def test_centroid_is_in_mm_from_the_image_centre() -> None:
    """Row first; the centre of a 10 × 10 grid lies between its samples 4 and 5."""
    grid = np.zeros((5, 10, 10), dtype=np.float32)
    grid[2, 0, 9] = 1.0
    assert measures_of(answer(grid))[Label.SUBARACHNOID].centroid_mm == (-9.0, 9.0)
    assert measures_of(answer(grid))[Label.MASS].centroid_mm is None


@given(st.lists(st.floats(0.0, 1.0, width=32), min_size=6, max_size=6))
def test_probabilities_pass_through_to_their_labels(probabilities: list[float]) -> None:
    """Order is the contract's."""
    measures = measures_of(checked(answer(probabilities=probabilities)))
    assert [measures[label].probability for label in LABELS] == pytest.approx(probabilities)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 1.1])
def test_values_outside_the_unit_range_are_no_answer(value: float) -> None:
    """In the probabilities or anywhere in the segmentation."""
    grid = np.zeros((5, 10, 10), dtype=np.float32)
    grid[3, 4, 4] = value
    for wrong in (answer(grid), answer(probabilities=[0.1, 0.1, value, 0.1, 0.1, 0.1])):
        with pytest.raises(NotAnalysable) as refused:
            checked(wrong)
        assert refused.value.reason is Reason.MODEL_ANSWER_INVALID


@pytest.mark.parametrize("shape", [(5,), (5, 10), (4, 10, 10), (6, 10, 10), (5, 0, 10)])
def test_other_shapes_are_no_answer(shape: tuple[int, ...]) -> None:
    """A model that was exchanged for another is noticed at once."""
    with pytest.raises(NotAnalysable):
        checked(answer(np.zeros(shape, dtype=np.float32)))
    with pytest.raises(NotAnalysable):
        checked(answer(probabilities=[0.1] * 5))


def test_fp16_rounding_is_clipped_not_refused() -> None:
    """An engine in FP16 may answer 1.0005."""
    assert checked(answer(probabilities=[1.0005] * 6)).probabilities.max() == 1.0


PARAMETERS = {
    "labels": {"string_value": ",".join(LABELS)},
    **{f"threshold.{label}": {"string_value": "0.4"} for label in LABELS},
    "grid_pitch_mm": {"string_value": "1.2"},
}


def test_labels_thresholds_and_grid_come_from_the_models_configuration() -> None:
    """Operating points belong to the model that was calibrated, not to us."""
    model = served_model(HEAD_CT_LESION, "7", PARAMETERS)
    assert model.version == "7"
    assert model.thresholds[Label.MASS] == 0.4
    assert model.grid_pitch_mm == 1.2


@pytest.mark.parametrize("missing", ["labels", "threshold.mass", "grid_pitch_mm"])
def test_a_model_without_its_parameters_is_not_used(missing: str) -> None:
    """No default threshold: an uncalibrated model must not look calibrated."""
    with pytest.raises(PeerRefused):
        served_model(HEAD_CT_LESION, "1", {name: value for name, value in PARAMETERS.items() if name != missing})


def test_a_model_with_other_labels_is_not_used() -> None:
    """The same numbers under other names would be other findings."""
    swapped = [*LABELS[:1], *reversed(LABELS[1:])]
    with pytest.raises(PeerRefused):
        served_model(HEAD_CT_LESION, "1", PARAMETERS | {"labels": {"string_value": ",".join(swapped)}})
