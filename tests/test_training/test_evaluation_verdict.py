"""The evaluation's study rule is the service's: held against worker.flagging on random series."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.findings import Measure
from contracts.settings import FlaggingSettings
from training.data.study import COLUMNS
from training.evaluation import verdict
from training.evaluation.verdict import NEVER, SliceMeasures, is_flagged, study_score
from worker.flagging import chains
from worker.flagging import verdict as service

RULES = FlaggingSettings()
THRESHOLDS = np.array([0.5, 0.3, 0.35, 0.3, 0.3, 0.6])


@st.composite
def series(draw: st.DrawFn) -> SliceMeasures:
    """One to nine slices: thin and thick, gaps, repeated positions, areas of nothing, little and much."""
    count = draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = (count, len(COLUMNS))
    areas = rng.choice([0.0, 0.0, 5.0, 30.0, 400.0], shape)
    centroids = rng.choice([-30.0, 0.0, 25.0], (*shape, 2))
    centroids[areas == 0] = np.nan
    shape_of = draw(st.sampled_from([(1, 3), (1, 1), (3, 1)]))
    probabilities = rng.beta(*shape_of, shape).round(3)
    probabilities[:, draw(st.sampled_from([1, 2, 6])) :] = 0.0  # one label alone decides by its own places
    step = draw(st.sampled_from([0.04, 0.6, 1.5, 5.0, 8.0]))
    return SliceMeasures(
        probabilities=probabilities,
        areas_mm2=areas,
        outside_mm2=rng.choice([0.0, 30.0], shape),
        centroids_mm=centroids,
        position_mm=np.sort(rng.choice(np.arange(12), count) * step).round(3).astype(np.float64),
        thickness_mm=np.full(count, draw(st.sampled_from([0.6, 1.5, 5.0]))),
    )


def told_by_the_service(slices: SliceMeasures, thresholds: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> bool:
    """worker.flagging's evidence of a closed study."""
    evidence = service.Evidence(RULES)
    for nth, position_mm in enumerate(slices.position_mm):
        measures = {
            label: Measure(
                probability=slices.probabilities[nth, at],
                threshold=thresholds[at],
                area_mm2=slices.areas_mm2[nth, at],
                outside_mm2=slices.outside_mm2[nth, at],
                centroid_mm=tuple(slices.centroids_mm[nth, at]) if slices.areas_mm2[nth, at] else None,
            )
            for at, label in enumerate(COLUMNS)
        }
        one = service.Slice(f"{nth}", "series", "axial", float(position_mm), float(slices.thickness_mm[nth]), measures)
        evidence.put(nth, one)
    return bool(evidence.findings(final=True))


@settings(max_examples=400, deadline=None)
@given(series())
def test_a_study_is_flagged_here_exactly_when_the_service_flags_it(slices: SliceMeasures) -> None:
    """Neighbours, extent, place, volume, lone slices: one rule, written twice because rooms do not import rooms."""
    assert is_flagged(slices, THRESHOLDS) == told_by_the_service(slices, THRESHOLDS)


@settings(max_examples=150, deadline=None)
@given(series())
def test_the_score_is_the_highest_operating_point_at_which_the_service_flags(slices: SliceMeasures) -> None:
    """At the score it is flagged, just above it is not; a score below zero is flagged at no operating point."""
    score = study_score(slices, THRESHOLDS)
    above = THRESHOLDS.copy()
    above[0] = min(1.0, max(score, 0.0) + 1e-6)
    if score < 1.0 - 1e-6:
        assert not told_by_the_service(slices, above) or score < 0 <= above[0] <= 1e-6
    if score >= 0:
        at = THRESHOLDS.copy()
        at[0] = score
        assert told_by_the_service(slices, at)
    assert score > NEVER


def test_the_rule_and_the_service_use_the_same_numbers() -> None:
    """Constants that both write down are equal."""
    assert verdict.SAME_PLACE_MM == chains.SAME_PLACE_MM
    assert verdict.POSITION_GRID_MM == chains.POSITION_GRID_MM
    assert verdict.SURE_SHARE == service.SURE_SHARE
    assert verdict.TOUCH_MM == service.TOUCH_MM
    assert verdict.ML_PER_MM3 == service.ML_PER_MM3


def test_a_study_without_a_slice_is_never_flagged() -> None:
    """Nothing scored ranks below everything."""
    none = SliceMeasures(
        np.empty((0, 6)), np.empty((0, 6)), np.empty((0, 6)), np.empty((0, 6, 2)), np.empty(0), np.empty(0)
    )
    assert not is_flagged(none, THRESHOLDS)
    assert study_score(none, THRESHOLDS) == NEVER
