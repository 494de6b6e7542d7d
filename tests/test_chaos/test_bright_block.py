"""The stand-in model's rule, and what scoring makes of its moods."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from chaos.bright_block import GRID_PITCH_MM, GRID_SIZE, SMALLEST_MM2, answers, positive, spoilt
from chaos.scenario import Mood
from contracts.errors import NotAnalysable
from contracts.findings import Label
from contracts.model_config import MARK
from contracts.reasons import Reason
from contracts.tensors import HEAD_CT_LESION
from worker.scoring.measure import Answer, ServedModel, checked, measures_of

ROOT = Path(__file__).parents[2]
MODEL = ServedModel("head_ct_lesion", "1", HEAD_CT_LESION.labels, dict.fromkeys(Label, 0.5), GRID_PITCH_MM)
SPACING = np.array([[1.2, 1.2]], dtype=np.float32)


def head(side: int, row: int = 50, column: int = 60) -> NDArray[np.float16]:
    """A batch of one: brain in air, with a bright square of that many samples a side."""
    hu = np.full((1, 128, 128), -1000.0, dtype=np.float16)
    hu[0, 20:108, 20:108] = 35.0
    hu[0, row : row + side, column : column + side] = 70.0
    return hu


@given(side=st.integers(0, 40), row=st.integers(20, 60), column=st.integers(20, 60))
def test_a_block_is_found_exactly_from_its_smallest_area(side: int, row: int, column: int) -> None:
    """Positive if and only if the block covers 3 cm²; the ledger foretells by the same function."""
    expected = side**2 * 1.2 * 1.2 >= SMALLEST_MM2
    image = head(side, row, column)
    assert positive(image[0], (1.2, 1.2)) == expected
    probabilities, segmentation = answers(image, SPACING)
    assert bool(probabilities[0, 0] > 0.5) == expected
    assert bool(segmentation.any()) == expected


def test_scoring_measures_the_block_where_it_is_and_as_large_as_it_is() -> None:
    """Through scoring's own measures: intraparenchymal and any, area within a tenth, centre within one sample."""
    probabilities, segmentation = answers(head(30), SPACING)
    measures = measures_of(checked(Answer(probabilities[0], segmentation[0], MODEL)))
    found = measures[Label.INTRAPARENCHYMAL]
    assert found.area_mm2 == pytest.approx((30 * 1.2) ** 2, rel=0.1)
    assert found.centroid_mm is not None
    middle_mm = ((64.5 - 63.5) * 1.2, (74.5 - 63.5) * 1.2)
    assert found.centroid_mm == pytest.approx(middle_mm, abs=GRID_PITCH_MM)
    assert measures[Label.ANY].area_mm2 == found.area_mm2
    assert measures[Label.MASS].area_mm2 == 0.0


@pytest.mark.parametrize("mood", [Mood.NAN, Mood.WRONG_SHAPE])
def test_scoring_refuses_a_spoilt_answer(mood: Mood) -> None:
    """Answers of a sick model are invalid answers to scoring, positive ones as well as negative."""
    for side in (0, 30):
        probabilities, segmentation = spoilt(answers(head(side), SPACING), mood)
        with pytest.raises(NotAnalysable) as refused:
            checked(Answer(probabilities[0], segmentation[0], MODEL))
        assert refused.value.reason is Reason.MODEL_ANSWER_INVALID


def test_the_configuration_is_the_real_models_but_for_its_values() -> None:
    """Scoring must take the stand-in for the shipped model: tensors, labels, parameters; its own points, grid."""
    real, ours = (
        (ROOT / place / "head_ct_lesion" / "configs" / "cpu.pbtxt").read_text().split("\nname:")[1]
        for place in ("triton_models", "chaos/standin")
    )
    value = re.compile(r'(key: "(?:grid_\w+|threshold\.\w+|trained_on)" value \{ string_value: )"[^"]+"')
    assert value.sub(r'\1"…"', ours) == value.sub(r'\1"…"', real.replace(f"{MARK}\n", ""))
    assert f'"grid_size" value {{ string_value: "{GRID_SIZE}"' in ours
    assert f'"grid_pitch_mm" value {{ string_value: "{GRID_PITCH_MM}"' in ours
