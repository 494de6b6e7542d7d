"""Figures of merit, the baseline, the recipe."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.study import Fault
from training.evaluation.calibration import calibrate
from training.evaluation.measure import auc, by_head, calibration_error, dice, threshold_at
from training.evaluation.threshold import blood_area_mm2
from training.fit.data import Unfit
from training.recipe import FaultName, read_recipe

RECIPE = Path(__file__).parents[2] / "training" / "configs" / "head_ct_lesion.toml"


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=4, max_size=60))
def test_auc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[bool, int]]) -> None:
    """By definition: a lesion's score above a clean one's counts one, a tie half."""
    sick = [score for truth, score in pairs if truth]
    well = [score for truth, score in pairs if not truth]
    found = auc(np.array([float(t) for t, _ in pairs]), np.array([float(s) for _, s in pairs]))
    if not sick or not well:
        assert np.isnan(found)
        return
    right = sum((a > b) + 0.5 * (a == b) for a in sick for b in well)
    assert found == pytest.approx(right / (len(sick) * len(well)))


@given(st.lists(st.floats(0, 1), min_size=20, max_size=200), st.sampled_from([0.02, 0.05, 0.1, 0.3]))
def test_a_threshold_never_lets_more_than_its_share_pass(scores: list[float], share: float) -> None:
    """The false-alarm share on the slices it was set on is kept, ties included."""
    threshold = threshold_at(np.array(scores), share)
    assert (np.array(scores) >= threshold).mean() <= share


@pytest.mark.parametrize(("share", "passing"), [(0.05, 1), (0.09, 1), (0.1, 2), (0.04, 0), (1.0, 19)])
def test_a_threshold_lets_pass_what_its_share_allows(share: float, passing: int) -> None:
    """One of twenty is five in a hundred: a stricter point would miss bleeds for nothing."""
    scores = np.arange(20) / 20
    assert (scores >= threshold_at(scores, share)).sum() == passing


def test_auc_of_a_perfect_a_reversed_and_a_one_sided_score() -> None:
    """1, 0, and not a number where only one class is present."""
    truth = np.array([0.0, 0, 1, 1])
    assert auc(truth, np.array([0.1, 0.2, 0.8, 0.9])) == 1
    assert auc(truth, np.array([0.9, 0.8, 0.2, 0.1])) == 0
    assert np.isnan(auc(np.zeros(4), np.arange(4.0)))


def test_the_interval_holds_the_value_and_grows_with_fewer_heads() -> None:
    """Ten slices of one head are one witness, not ten."""
    values = np.random.default_rng(0).normal(0, 1, 400)
    many = by_head(lambda r: float(values[r].mean()), np.arange(400))
    few = by_head(lambda r: float(values[r].mean()), np.arange(400) // 40)
    assert many.low <= many.value <= many.high
    assert few.high - few.low > 0
    assert many.value == few.value


def test_calibration_error_is_zero_for_honest_and_high_for_boastful_probabilities() -> None:
    """Half of the slices that are given one half have a lesion: no error."""
    truth = np.tile([0.0, 1.0], 50)
    assert calibration_error(np.full(100, 0.5), truth) == pytest.approx(0)
    assert calibration_error(np.full(100, 0.99), truth) > 0.4


def test_calibration_turns_raw_logits_into_frequencies() -> None:
    """Logits three times too sure are brought back, and thresholds keep the stated share of clean slices."""
    rng = np.random.default_rng(1)
    honest = rng.normal(0, 2, (3000, 6))
    labels = (rng.random((3000, 6)) < 1 / (1 + np.exp(-honest))).astype(np.float32)
    labels[:1000] = 0
    honest[:1000] = rng.normal(-3, 1, (1000, 6))
    calibrated = calibrate(3 * honest, labels, false_alarm_share=0.05)
    assert all(0.2 < scale < 0.6 for scale in calibrated.scale)
    any_probability = 1 / (1 + np.exp(-(3 * honest[:, 0] * calibrated.scale[0] + calibrated.offset[0])))
    free = labels.max(1) == 0
    assert (any_probability[free] >= calibrated.thresholds["any"]).mean() <= 0.05


def test_dice_of_equal_disjoint_and_empty_masks() -> None:
    """1, 0 and 1."""
    one = np.zeros((4, 4), bool)
    one[0] = True
    assert dice(one, one) == 1
    assert dice(one, ~one) == 0
    assert dice(one & False, one & False) == 1


def test_the_baseline_sees_blood_in_the_skull_but_not_bone_or_scalp() -> None:
    """A ring of bone around brain with a bright disc: the disc's area; without the disc: nothing."""
    y, x = np.mgrid[:200, :200] - 100
    radius = np.hypot(x, y)
    head = np.where(radius < 80, 35.0, np.where(radius < 88, 900.0, -1000.0)).astype(np.float32)
    blood = np.where(np.hypot(x - 30, y) < 12, 68.0, head).astype(np.float32)
    assert blood_area_mm2(head, 1.0, 54.0) < 20
    assert 300 < blood_area_mm2(blood, 1.0, 54.0) < 600


def test_the_committed_recipe_is_read_and_its_sets_share_no_head() -> None:
    """No seed that is trained on is ever evaluated on."""
    recipe = read_recipe(RECIPE.read_text("utf-8"))
    seeds = [set(range(s.first_seed, s.first_seed + s.heads)) for s in recipe.sets.values()]
    assert sum(len(s) for s in seeds) == len(set().union(*seeds))
    assert len({s.key for s in recipe.sets.values()}) == len(recipe.sets)


@pytest.mark.parametrize("damage", ["name = 3", "[fit]\nnonsense = 1", "not toml at all ["])
def test_a_recipe_that_is_not_understood_is_refused_with_a_sentence(damage: str) -> None:
    """A wrong recipe stops the run before anything is drawn."""
    with pytest.raises(ValueError, match="not understood"):
        read_recipe(damage)


def test_recipes_whose_sets_share_heads_are_refused() -> None:
    """What is judged was not learned from: the sentence names both sets and the seed."""
    text = RECIPE.read_text("utf-8").replace("first_seed = 2_000_000", "first_seed = 399")
    with pytest.raises(ValueError, match=r"sets\.train, sets\.hard: share heads from seed 399"):
        read_recipe(text)


def test_a_recipe_may_allow_every_rule_of_the_check_and_no_other() -> None:
    """A recipe is read without the packages of the data: its list is held against theirs here."""
    assert set(get_args(FaultName)) == set(Fault)
    data = '\n[data]\nlayout = "rsna"\npath = "."\nallow = ["leek"]\n'
    with pytest.raises(ValueError, match=r"data\.allow"):
        read_recipe(RECIPE.read_text("utf-8") + data)


def test_data_that_say_nothing_of_masses_are_calibrated_on() -> None:
    """Public sets ask for bleeds alone: their clean slices are clean, and a label nobody asked for is left as it is."""
    rng = np.random.default_rng(5)
    labels = np.zeros((300, 6), np.float32)
    labels[:90, :3] = 1
    labels[:, 5] = 0.5
    logits = np.where(labels == 1, 2.0, -2.0) + rng.normal(0, 1, labels.shape)
    found = calibrate(logits, labels, 0.05)
    assert all(0.3 <= value <= 0.95 for value in found.thresholds.values())
    assert (found.scale[5], found.offset[5]) == (1.0, 0.0)
    for none in (0.0, 1.0):
        with pytest.raises(Unfit, match="nothing can be calibrated"):
            calibrate(logits, np.where(labels == none, 0.5, labels), 0.05)


def test_no_threshold_lies_below_a_probability_worth_overtaking_for() -> None:
    """A kind that hardly occurs on validation still needs 0.3."""
    rng = np.random.default_rng(3)
    labels = np.zeros((400, 6), np.float32)
    labels[:40] = 1
    logits = np.where(labels == 1, 5.0, -8.0) + rng.normal(0, 0.5, (400, 6))
    assert all(0.3 <= value <= 0.95 for value in calibrate(logits, labels, 0.05).thresholds.values())
