"""Figures of studies: what counts as found, how an operating point is chosen, what baselines are given."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from training.data.study import Facts, Study, Truth
from training.evaluation import figures
from training.evaluation.account import headline_json, section
from training.evaluation.calibration import reliability, temperature, tempered
from training.evaluation.figures import KEYS, headline, operating_point
from training.evaluation.judging import Case, Judged, Lesion, case_of, judged, lesions_of, slice_labels
from training.evaluation.measure import calibration_error
from training.evaluation.reading import LABELS
from training.evaluation.threshold import any_reading
from training.evaluation.tiers import Outcome

NO_VOXELS = np.empty(0, np.intp)


def one(score: float, *, sick: bool | None, slices: tuple[float, ...] = (0.1, 0.1), name: str = "") -> Judged:
    """A judged study whose last slice shows the lesion, if there is one: 4 ml, half of it marked there."""
    labels = np.zeros((len(slices), 6), np.float32)
    labels[-1, 0] = float(bool(sick))
    lesion = Lesion("mass", 4.0, 60.0, NO_VOXELS)
    case = Case(name or f"{score}", name or f"{score}", sick, labels, (lesion,) * bool(sick), Facts(), (5.0, 1.0, 1.0))
    probabilities = np.zeros((len(slices), 6))
    probabilities[:, 0] = slices
    marked = (np.r_[np.zeros(len(slices) - 1), 2.0],) * bool(sick)
    nothing, none = np.zeros(len(slices)), np.zeros(len(slices), bool)
    return Judged(case, probabilities, score, 0.5 if sick else None, marked, nothing, nothing, none)


def volume(masks: np.ndarray, **truth: object) -> Study:  # type: ignore[type-arg]  # any integer
    """A study of water around its masks: 1 ml is a thousand voxels."""
    hu = np.where(masks > 0, 70, 30).astype(np.int16)
    z_mm = np.arange(len(hu), dtype=np.float32)
    told = Truth(masks=masks.astype(np.uint8), **truth)  # type: ignore[arg-type]  # by name
    return Study("1.2", "p", hu, (1.0, 1.0, 1.0), z_mm, told, Facts(), "test")


def test_the_headline_of_four_known_studies() -> None:
    """Each figure as one counts it by hand."""
    cases = [
        one(0.9, sick=True, slices=(0.2, 0.9)),
        one(0.4, sick=True, slices=(0.1, 0.4), name="missed"),
        one(0.6, sick=False, slices=(0.6, 0.3)),
        one(0.1, sick=False),
    ]
    told = headline(cases, threshold=0.5)
    assert tuple(told) == KEYS
    assert told["study_auc"] == 0.75
    assert told["image_auc"] == pytest.approx((6 + 5) / 12)
    assert told["sensitivity"] == told["false_study_rate"] == told["lesion_recall_2ml"] == told["dice"] == 0.5


def test_a_lesion_is_found_only_where_a_tenth_of_it_is_marked_on_slices_that_speak() -> None:
    """Marks on silent slices do not count, nor does a grain of it on a loud one."""
    loud = one(0.9, sick=True, slices=(0.2, 0.9))
    assert loud.found(0.5) == (True,)
    assert loud.found(0.95) == (False,)
    assert replace(loud, marked_ml=(np.array([0.0, 0.39]),)).found(0.5) == (False,)
    assert replace(loud, marked_ml=(np.array([4.0, 0.4]),)).found(0.5) == (True,)


def test_what_the_truth_does_not_say_is_not_a_number() -> None:
    """No clean study: no false-alarm rate and no AUC, instead of a flattering zero."""
    told = headline([one(0.9, sick=True), one(0.3, sick=None)], 0.5)
    assert np.isnan(told["false_study_rate"])
    assert np.isnan(told["study_auc"])
    assert told["sensitivity"] == 1
    assert all(np.isnan(value) for value in headline([], 0.5).values())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=20, max_size=60), st.sampled_from([0.05, 0.1, 0.2]))
def test_the_operating_point_keeps_its_budget_of_false_studies_and_false_images(
    scores: list[float], budget: float
) -> None:
    """On the studies it was chosen on; unless no point up to the highest allowed can."""
    cases = [one(score, sick=False, slices=(score, score / 2)) for score in scores]
    point = operating_point(cases, budget)
    assert figures.LOWEST <= point <= figures.HIGHEST
    if point < figures.HIGHEST:
        assert headline(cases, point)["false_study_rate"] <= budget
        assert (np.concatenate([c.probabilities[:, 0] for c in cases]) >= point).mean() <= budget


def test_an_operating_point_without_a_clean_study_is_refused() -> None:
    """There is nothing to count false alarms on."""
    with pytest.raises(ValueError, match="without a lesion"):
        operating_point([one(0.5, sick=True)])


def test_a_baseline_is_given_as_many_false_studies_as_the_network_had() -> None:
    """Its point is set in hindsight, so that its sensitivity is compared at the same price."""
    scores = np.linspace(0.05, 0.95, 20)
    clean = [one(float(s), sick=False, name=f"c{s}") for s in scores]
    ill = [one(float(s) + 0.02, sick=True, name=f"s{s}") for s in scores]
    outcome = Outcome(judged={"network": clean + ill, "HU threshold": clean + ill})
    told = headline_json(outcome, "network", "HU threshold", 0.75)
    assert set(told) == {*KEYS, "threshold_baseline"}
    assert set(told["threshold_baseline"]) == set(KEYS)
    assert told["threshold_baseline"]["false_study_rate"] <= told["false_study_rate"]
    assert told["threshold_baseline"]["sensitivity"] >= told["sensitivity"] - 0.051


def test_lesions_are_joined_over_corners_and_slices_but_not_over_kinds() -> None:
    """Two blocks that touch in a corner are one lesion; what is of another kind is another."""
    masks = np.zeros((12, 40, 40), np.uint8)
    masks[2:6, 5:15, 5:15] = 1
    masks[6:10, 15:25, 15:25] = 1
    masks[2:6, 30:38, 30:38] = 2
    masks[0, 0, 0] = 1  # a speck is no lesion
    found = lesions_of(volume(masks))
    assert [lesion.kind for lesion in found] == ["intraparenchymal", "subdural_epidural"]
    assert [lesion.volume_ml for lesion in found] == pytest.approx([0.8, 0.256])
    assert found[0].density_hu == pytest.approx(70)


def test_marks_are_counted_on_the_lesion_they_lie_on() -> None:
    """Dice and marked millilitres of a half-marked lesion."""
    masks = np.zeros((4, 30, 30), np.uint8)
    masks[1:3, 5:25, 5:25] = 1
    study = volume(masks, any=True)
    marks = masks > 0
    marks[2] = False
    told = judged(case_of(study), study, any_reading(study, np.full(4, 0.9), marks, (1.0, 1.0)), {"any": 0.5})
    assert told.dice == pytest.approx(2 * 400 / (400 + 800))
    assert told.marked_ml[0].tolist() == pytest.approx([0, 0.4, 0, 0])


def test_slice_labels_follow_from_the_study_only_where_they_must() -> None:
    """Clean studies are clean on every slice, a lone slice is its study; which slice bleeds is else not known."""
    study = volume(np.zeros((3, 4, 4), np.uint8))
    clean = replace(study, truth=Truth(any=False))
    ill = replace(study, truth=Truth(any=True))
    lone = replace(ill, hu=ill.hu[:1], z_mm=ill.z_mm[:1])
    assert (slice_labels(clean) == 0).all()
    assert np.isnan(slice_labels(ill)).all()
    assert slice_labels(lone)[0, 0] == 1


def test_temperature_undoes_boasting_and_is_judged_on_other_patients() -> None:
    """Logits three times too sure: a temperature of three, and the calibration error falls."""
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, 4000)
    truth = (rng.random(4000) < 1 / (1 + np.exp(-honest))).astype(float)
    assert temperature(3 * honest, truth) == pytest.approx(3, rel=0.15)
    before = 1 / (1 + np.exp(-3 * honest))
    after = tempered(3 * honest, truth, np.arange(4000))
    assert calibration_error(after, truth) < 0.5 * calibration_error(before, truth)
    told = reliability(after, truth)
    assert sum(told.count) == 4000
    assert temperature(honest, np.ones(4000)) == 1


def test_a_section_tells_subgroups_lesions_and_coverage() -> None:
    """Tables are made of the same cases; facts that nobody stated make no table."""
    cases = [one(0.9, sick=True, slices=(0.2, 0.9)), one(0.2, sick=False, name="b")]
    cases = [replace(c, case=replace(c.case, facts=Facts(age_years=70.0, sex="F"))) for c in cases]
    told = section(Outcome(judged={"network": cases}), "network", 0.5)
    assert [row["class"] for row in told["subgroups"]["age"]] == ["65–80 years"]
    assert "scanner" not in told["subgroups"]
    assert told["lesions"]["kind"][0]["recall_2ml"] == 1
    assert told["coverage"][0]["wrong"] == 0
    assert told["network"]["sensitivity"][0] == 1
    assert len(LABELS) == 6


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=3, max_size=50))
def test_average_precision_is_scikit_learns(pairs: list[tuple[bool, int]]) -> None:
    """Ties included; not a number where one class is missing."""
    truth = np.array([float(t) for t, _ in pairs])
    score = np.array([float(s) for _, s in pairs])
    told = figures.average_precision(truth, score)
    if not 0 < truth.sum() < len(truth):
        assert np.isnan(told)
        return
    assert told == pytest.approx(average_precision_score(truth, score))
