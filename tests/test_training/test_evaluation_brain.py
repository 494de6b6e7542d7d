"""The brain mask in evaluation: what is refused and what is measured is what scoring would refuse and measure."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from contracts.findings import Measure
from training.data.study import Entry, Facts, Study, Truth
from training.evaluation import rays
from training.evaluation.brain_in import SHIPPED_MASK, BrainMask
from training.evaluation.network_in import Network
from training.evaluation.reading import LABELS
from training.evaluation.tiers import Plan, evaluate
from training.onnx_in import OnnxModel
from training.serving.samples_in import drawn_slices, real_slices
from training.serving.session_in import answers, session, slice_feed
from training.slices_out import SliceTable
from worker.scoring import content
from worker.scoring.inside import Inside
from worker.scoring.measure import Answer, ServedModel, checked, found_something, measures_of
from worker.scoring.routing import HEAD_CT

SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
Slice = tuple[NDArray[np.float16], float]  # HU (H, W), pitch in mm


def study_of(hu: NDArray[Any], pitch_mm: float) -> Study:
    """A study of these slices (n, H, W), 5 mm apart."""
    z_mm = np.arange(len(hu), dtype=np.float32) * 5
    whole = np.rint(hu.astype(np.float32)).astype(np.int16)
    return Study("1.2.3", "p", whole, (5.0, pitch_mm, pitch_mm), z_mm, Truth(), Facts(), "test")


def moved(hu: NDArray[np.float16], rows: int) -> NDArray[np.float16]:
    """Most of it pushed out of the picture."""
    found = np.full_like(hu, -1000)
    found[rows:] = hu[:-rows]
    return found


@pytest.fixture(scope="module")
def slices(small_table: SliceTable) -> list[Slice]:
    """Phantoms, drawn discs, a real head, a real spine, half heads, water, nothing: whole HU, as scanners send them."""
    drawn = [(hu, float(pitch)) for hu, pitch in zip(small_table.hu, small_table.pitch_mm, strict=True)]
    pictures = [*drawn, *drawn_slices(), *real_slices(), *real_slices(("CT_small.dcm",))]
    found = [(np.rint(np.clip(hu, -1024, 3071)).astype(np.float16), pitch) for hu, pitch in pictures]
    cut = [(moved(hu, len(hu) // 2), pitch) for hu, pitch in found[:3]]
    return [*found, *cut, (np.zeros((256, 256), np.float16), 0.9), (np.full((256, 256), -1000, np.float16), 0.9)]


def test_the_limits_of_the_rays_are_the_services() -> None:
    """Constants that both write down are equal."""
    both = {"RAYS", "STEP_MM", "REACH_MM", "BODY_HU", "BONE_HU", "BRAIN_HU", "LEAST_CONTRAST_HU", "EVERY", "COARSE_MM"}
    assert all(getattr(rays, name) == getattr(content, f"_{name}") for name in both)
    assert (content.SURELY.skull_radius_mm, content.SURELY.scalp_mm) == (rays.RADIUS_MM, rays.SCALP_MM)
    assert (content.SURELY.ringed, content.SURELY.brain) == (rays.RINGED, rays.BRAIN)


def test_surely_a_head_and_blank_are_told_as_the_service_tells_them(slices: list[Slice]) -> None:
    """The same fractions, hence the same answer, on every kind of slice; both answers occur."""
    for hu, pitch in slices:
        theirs = content.head_likeness(hu, (pitch, pitch))
        assert rays.likeness(hu, (pitch, pitch)) == pytest.approx((theirs.ringed, theirs.brain), abs=1e-6)
        assert rays.blank(hu) == content.shows_nothing(hu)
    assert {rays.surely_head(hu, (pitch, pitch)) for hu, pitch in slices} == {True, False}


def told_by_the_service(hu: NDArray[np.float16], pitch_mm: float) -> list[Measure] | None:
    """Measures in the labels' order from scoring's own steps, a tag having named the head; None: refused."""
    spacing_mm = (pitch_mm, pitch_mm)
    if content.shows_nothing(hu):
        return None
    model, mask = OnnxModel(SHIPPED), session(SHIPPED_MASK)
    probabilities, segmentation = model(hu[None], np.array([spacing_mm], np.float32))
    thresholds = {label: model.threshold(label.value) for label in HEAD_CT.model.labels}
    served = ServedModel("m", "1", HEAD_CT.model.labels, thresholds, float(model.metadata["grid_pitch_mm"]))
    organ = ServedModel("o", "1", (), {}, float(mask.get_modelmeta().custom_metadata_map["grid_pitch_mm"]))
    answer = checked(Answer(probabilities[0], segmentation[0], served))
    doubt, inside = not HEAD_CT.surely_right(hu, spacing_mm), None
    if doubt or found_something(answer):
        chance = answers(mask, slice_feed(hu, pitch_mm))["MASK"][0]
        inside = Inside.told_by(checked(Answer(np.empty(0, np.float32), chance, organ)))
    if inside and doubt and not inside.holds_brain:
        return None
    shape = (segmentation.shape[2], segmentation.shape[3])
    return list(measures_of(answer, inside.on(shape, served.grid_pitch_mm) if inside else None).values())


def test_slices_are_refused_and_measured_as_scoring_does(slices: list[Slice]) -> None:
    """Area inside, area outside, centroid and probability of every label that speaks; both kinds of word occur."""
    network = Network(SHIPPED, mask=BrainMask())
    refused = []
    for hu, pitch in slices:
        theirs, ours = told_by_the_service(hu, pitch), network.read(study_of(hu[None], pitch))
        refused.append(bool(ours.refused[0]))
        assert refused[-1] == (theirs is None)
        for at, measure in enumerate(theirs or ()):
            assert ours.measures.probabilities[0, at] == pytest.approx(measure.probability, abs=1e-5)
            if measure.positive:
                assert ours.measures.areas_mm2[0, at] == pytest.approx(measure.area_mm2, abs=0.01)
                assert ours.measures.outside_mm2[0, at] == pytest.approx(measure.outside_mm2, abs=0.01)
    assert set(refused) == {True, False}


class _Marked(OnnxModel):
    """A network that marks all of its grid and is sure of it."""

    def __call__(
        self, hu: NDArray[np.float16], _spacing_mm: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.ones((len(hu), 6), np.float32), np.ones((len(hu), 5, 144, 144), np.float32)


@pytest.fixture(scope="module")
def loud() -> Network:
    """The same with the brain mask beside it."""
    network = Network(SHIPPED, mask=BrainMask())
    network.model = _Marked(SHIPPED)
    return network


def test_what_is_marked_outside_the_head_counts_for_nothing(loud: Network) -> None:
    """Of a grid marked all over, the head's inside is area and the rest is told as outside; the marks are cut too."""
    ((hu, pitch),) = real_slices()
    told = loud.read(study_of(hu[None], pitch))
    area, outside = told.measures.areas_mm2[0], told.measures.outside_mm2[0]
    assert area + outside == pytest.approx(np.full(6, (144 * 1.6) ** 2))
    assert 8_000 < area[0] < 20_000
    assert (told.marks[0] > 0).sum() * pitch**2 == pytest.approx(area[0], rel=0.05)
    assert Network(SHIPPED).read(study_of(hu[None], pitch)).measures.outside_mm2.max() == 0


def test_a_refused_slice_is_never_raised_and_is_no_neighbour(loud: Network) -> None:
    """Air above a head: empty measures, no marks; the study's rule does not see it."""
    ((hu, pitch),) = real_slices()
    both = np.stack([hu, np.full_like(hu, -1000)])
    told = loud.read(study_of(both, pitch))
    assert told.refused.tolist() == [False, True]
    assert not told.measures.probabilities[1].any()
    assert not told.measures.areas_mm2[1].any()
    assert not told.marks[1].any()
    assert told.measures.of(~told.refused).position_mm.tolist() == [0.0]


class _Air:
    """One study without a head."""

    def entries(self) -> list[Entry]:
        return [Entry("1", "a", "air", False)]

    def load(self, _entry: Entry) -> Study:
        return study_of(np.full((3, 256, 256), -1000, np.float16), 0.9)


def test_a_study_of_which_every_slice_is_refused_is_an_abstention(loud: Network) -> None:
    """It is counted as not scored, not as a study rightly left alone."""
    outcome = evaluate(_Air(), Plan(readers=(loud,)))
    assert not outcome.judged
    assert [(one.place, one.unreadable) for one in outcome.refused] == [("air", False)]


def shapes() -> Iterator[tuple[str, Study]]:
    """Real head slices as series that scanners send: one slice, many thin ones, a tilted gantry's."""
    ((hu, pitch),) = real_slices()
    small = np.rint(hu[::2, ::2]).astype(np.int16)
    for name, count, gap_mm, shift in (("one", 1, 5.0, 0), ("thin", 200, 0.6, 0), ("tilted", 24, 5.0, 2)):
        volume = np.stack([np.roll(small, shift * (nth - count // 2), 0) for nth in range(count)])
        z_mm = np.arange(count, dtype=np.float32) * gap_mm
        yield name, Study("1.2", "p", volume, (gap_mm, 2 * pitch, 2 * pitch), z_mm, Truth(), Facts(), "test")


@pytest.mark.parametrize(("name", "study"), list(shapes()))
def test_output_stays_sane_on_one_slice_on_hundreds_and_on_a_tilt(name: str, study: Study) -> None:
    """Finite, within bounds, one row a slice; the same picture gets the same word wherever in the series it stands."""
    told = Network(SHIPPED, mask=BrainMask()).read(study)
    assert told.marks.shape == study.hu.shape
    assert told.measures.probabilities.shape == (len(study.hu), len(LABELS))
    assert np.isfinite(told.measures.probabilities).all()
    assert ((told.measures.probabilities >= 0) & (told.measures.probabilities <= 1)).all()
    assert (told.measures.areas_mm2 + told.measures.outside_mm2 <= (144 * 1.6) ** 2).all()
    assert not told.refused.any()
    if name != "tilted":
        assert np.ptp(told.measures.probabilities, axis=0).max() < 1e-5
