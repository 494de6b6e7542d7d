"""Image scores → findings."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.findings import Finding, Label, Measure, Urgency
from contracts.settings import FlaggingSettings
from worker.flagging.verdict import Evidence, Slice, urgency_of

RULES = FlaggingSettings()
IPH, SDH, MASS = Label.INTRAPARENCHYMAL, Label.SUBDURAL_EPIDURAL, Label.MASS


def measure(probability: float = 0.8, area_mm2: float = 200.0, at: tuple[float, float] | None = (0.0, 0.0)) -> Measure:
    """A positive measure with an operating point of 0.5, unless said otherwise."""
    return Measure(probability=probability, threshold=0.5, area_mm2=area_mm2, centroid_mm=at)


NOTHING = measure(0.1, 0.0, None)


def one(position_mm: float, series: str = "1", thickness_mm: float = 5.0, **labels: Measure) -> Slice:
    """A slice; ANY is as probable as its most probable label unless given."""
    found = {Label(name): value for name, value in labels.items()}
    most = max((value.probability for value in found.values()), default=0.1)
    found.setdefault(Label.ANY, measure(most) if most >= 0.5 else NOTHING)
    return Slice(f"{series}@{position_mm}", series, "axial", position_mm, thickness_mm, found)


def findings(*slices: Slice, final: bool = False, rules: FlaggingSettings = RULES) -> dict[Label, Finding]:
    """The verdict over the slices."""
    evidence = Evidence(rules)
    for place, some in enumerate(slices):
        evidence.put(place, some)
    return {finding.name: finding for finding in evidence.findings(final=final)}


CERTAIN = measure(0.95)


@pytest.mark.parametrize(
    ("places_mm", "thickness_mm"),
    [((0, 15, 30, 45), 5.0), ((0, 13, 26, 39, 52), 5.0), ((0, 5, 30, 60, 65), 5.0), ((0, 10, 20), 0.6)],
    ids=["every third slice", "wide spacing", "a gap on either side", "slices too thin to agree"],
)
def test_a_slice_with_no_neighbour_to_agree_speaks_for_itself_when_it_is_sure(
    places_mm: tuple[int, ...], thickness_mm: float
) -> None:
    """A bleed whose slices lie too far apart, or lost their neighbours, once ended as not flagged with 0.98."""
    slices = [one(place, thickness_mm=thickness_mm) for place in places_mm]
    loud = [*slices[:2], one(places_mm[2], thickness_mm=thickness_mm, intraparenchymal=CERTAIN), *slices[3:]]
    assert set(findings(*loud, final=True)) == {IPH}
    assert not findings(*loud, final=False), "a neighbour may still come"
    unsure = [*slices[:2], one(places_mm[2], thickness_mm=thickness_mm, intraparenchymal=measure(0.8)), *slices[3:]]
    assert not findings(*unsure, final=True)


def test_a_sure_slice_whose_neighbours_show_nothing_is_noise() -> None:
    """They could have agreed, and did not."""
    assert not findings(one(0), one(5, intraparenchymal=CERTAIN), one(10), final=True)
    assert not findings(one(0), one(10, intraparenchymal=CERTAIN), one(20), final=True)


def test_two_neighbours_agree_and_one_alone_does_not() -> None:
    """A single positive slice among negatives is noise; two beside each other are a finding."""
    assert not findings(one(0), one(5, intraparenchymal=measure()), one(10))
    assert set(findings(one(0), one(5, intraparenchymal=measure()), one(10, intraparenchymal=measure()))) == {IPH}


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (one(20, intraparenchymal=measure()), "beyond max_gap_mm"),
        (one(5, series="2", intraparenchymal=measure()), "another series"),
        (dataclasses.replace(one(5, intraparenchymal=measure()), orientation="coronal"), "another orientation"),
        (one(5, intraparenchymal=measure(at=(0.0, 60.0))), "another place in the head"),
        (one(5, subdural_epidural=measure(), any=NOTHING), "another kind"),
        (one(0.02, intraparenchymal=measure()), "the same position again"),
    ],
)
def test_slices_that_are_no_neighbours_do_not_agree(other: Slice, why: str) -> None:
    """Positives that do not support each other are no finding."""
    first = one(0, intraparenchymal=measure(), any=NOTHING)
    assert IPH not in findings(first, dataclasses.replace(other, measures={**other.measures, Label.ANY: NOTHING})), why


def test_thin_slices_must_span_an_extent() -> None:
    """Two slices of 0.6 mm are one thick slice cut in two; five of them cover 3 mm."""
    thin = [one(n * 0.6, thickness_mm=0.6, intraparenchymal=measure()) for n in range(5)]
    assert not findings(*thin[:4])
    assert set(findings(*thin)) == {IPH}


def test_volume_is_area_times_spacing_and_not_times_thickness() -> None:
    """Overlapping slices of 5 mm every 2.5 mm: three of 200 mm² are 1.5 ml."""
    found = findings(*(one(n * 2.5, intraparenchymal=measure()) for n in range(3)), one(7.5))
    assert found[IPH].volume_ml == pytest.approx(1.5)


def test_a_repeated_position_counts_once_in_volume() -> None:
    """Two pictures of the same slice do not double the blood."""
    slices = [one(0, intraparenchymal=measure()), one(5, intraparenchymal=measure())]
    assert findings(*slices, slices[0])[IPH].volume_ml == findings(*slices)[IPH].volume_ml == pytest.approx(2.0)


def test_the_worst_series_counts_and_never_the_sum() -> None:
    """Bone and brain kernel show the same bleed; the larger is told, with its own key images."""
    small = [one(n * 5, "1", intraparenchymal=measure(area_mm2=100)) for n in range(2)]
    large = [one(n * 5, "2", intraparenchymal=measure(area_mm2=300)) for n in range(2)]
    found = findings(*small, *large)[IPH]
    assert found.volume_ml == pytest.approx(3.0)
    assert found.sop_instance_uids == ("2@0", "2@5")


def test_key_images_are_the_largest_and_at_most_as_many_as_set() -> None:
    """By area, the largest first."""
    slices = [one(n * 5, intraparenchymal=measure(area_mm2=100 + n)) for n in range(8)]
    assert findings(*slices)[IPH].sop_instance_uids == tuple(f"1@{n * 5}" for n in (7, 6, 5, 4, 3))


def test_small_chains_are_no_finding_and_unmeasured_ones_are_not_small() -> None:
    """Below min_volume_ml nothing is flagged; where the segmentation found no pixel the size is unknown."""
    tiny = measure(area_mm2=1.0)
    unknown = measure(area_mm2=0.0, at=None)
    assert not findings(*(one(n * 5, intraparenchymal=tiny, any=tiny) for n in range(2)))
    assert set(findings(*(one(n * 5, intraparenchymal=unknown, any=unknown) for n in range(2)))) == {IPH}


def test_an_agreed_overall_answer_without_a_kind_is_a_lesion() -> None:
    """The model is sure that something is there and not what: critical all the same."""
    found = findings(*(one(n * 5, any=measure()) for n in range(2)))
    assert set(found) == {Label.LESION}
    assert urgency_of(found.values()) is Urgency.CRITICAL


def test_a_kind_without_the_overall_answer_is_no_witness() -> None:
    """ANY is the gate: six labels that each may be wrong must not add up their false alarms."""
    doubtful = [one(place, any=measure(0.4), intraparenchymal=measure(0.9)) for place in (0.0, 5.0, 10.0)]
    assert findings(*doubtful) == {}
    plain = [one(place, any=measure(0.6), intraparenchymal=measure(0.9)) for place in (0.0, 5.0)]
    assert set(findings(*plain)) == {Label.INTRAPARENCHYMAL}


def test_a_finding_of_unknown_size_is_told_after_measured_ones() -> None:
    """What has a size is looked at first within one urgency class."""
    kinds = {"subarachnoid": measure(0.9, area_mm2=0.0), "intraparenchymal": measure(0.6)}
    both = [
        one(place, subarachnoid=kinds["subarachnoid"], intraparenchymal=kinds["intraparenchymal"]) for place in (0, 5)
    ]
    assert list(findings(*both)) == [Label.INTRAPARENCHYMAL, Label.SUBARACHNOID]


def test_several_kinds_are_told_most_urgent_first() -> None:
    """A bleed stands before a mass, whatever their probabilities."""
    evidence = Evidence(RULES)
    for n in range(2):
        evidence.put(n, one(n * 5, mass=measure(0.99), subdural_epidural=measure(0.6)))
    assert [finding.name for finding in evidence.findings(final=False)] == [SDH, MASS]


def test_a_series_of_one_slice_speaks_only_near_certainty_and_at_the_end() -> None:
    """Certain and final: flagged. Certain while slices may come, or only probable: not."""
    certain, likely = one(0, intraparenchymal=measure(0.95)), one(0, intraparenchymal=measure(0.8))
    assert not findings(certain)
    assert not findings(likely, final=True)
    assert set(findings(certain, final=True)) == {IPH}
    assert not findings(certain, one(5), final=True)


def test_a_replaced_score_takes_its_evidence_back() -> None:
    """A newer version's answer counts instead of the old one, not beside it."""
    evidence = Evidence(RULES)
    for n in range(2):
        evidence.put(n, one(n * 5, intraparenchymal=measure()))
    assert evidence.findings(final=False)
    evidence.put(1, one(5))
    assert not evidence.findings(final=False)


slices = st.builds(
    lambda place, series, probability, area, column: one(
        place * 2.5,
        series,
        2.5,
        intraparenchymal=measure(probability, area if probability >= 0.5 else 0.0, (0.0, column)),
    ),
    st.integers(0, 12),
    st.sampled_from(["1", "2"]),
    st.sampled_from([0.1, 0.6, 0.9]),
    st.sampled_from([0.0, 1.0, 30.0, 300.0]),
    st.sampled_from([0.0, 30.0, 60.0]),
)


@given(
    st.lists(slices, max_size=16).flatmap(lambda some: st.tuples(st.just(some), st.permutations(some))), st.booleans()
)
@settings(max_examples=200, deadline=None)
def test_the_order_of_arrival_does_not_matter(pair: tuple[list[Slice], list[Slice]], final: bool) -> None:  # noqa: FBT001 - hypothesis hands it in by place
    """Chains, volumes, key images: the same for any permutation."""
    first, second = pair
    assert findings(*first, final=final) == findings(*second, final=final)


@given(st.lists(slices, max_size=16))
@settings(max_examples=200, deadline=None)
def test_findings_only_grow_while_slices_arrive(arriving: list[Slice]) -> None:
    """No slice, positive or negative, takes a kind back that was found without it."""
    evidence = Evidence(RULES)
    before: set[Label] = set()
    for place, some in enumerate(arriving):
        evidence.put(place, some)
        found = {finding.name for finding in evidence.findings(final=False)} - {Label.LESION}
        assert before <= found
        before = found


def test_two_thousand_thin_slices_are_joined_slice_by_slice() -> None:
    """A large study is looked at after every slice; the work of one slice is that of its reach, not of the study."""
    evidence = Evidence(RULES)
    for n in range(2000):
        evidence.put(n, one(n * 0.6, thickness_mm=0.6, intraparenchymal=measure() if 900 <= n < 1000 else NOTHING))
        evidence.findings(final=False)
    (found,) = evidence.findings(final=True)
    assert found.volume_ml == pytest.approx(100 * 200 * 0.6 / 1000)
