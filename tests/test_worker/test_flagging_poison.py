"""Events that break whoever folds them: their study says so, and nothing else stops."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts import events
from contracts.errors import DecodeError
from contracts.events import Closed, StudyEvent
from contracts.findings import FARTHEST_MM, LARGEST_MM2, THICKEST_MM, StudyState
from contracts.reasons import Reason
from contracts.settings import FlaggingSettings
from tests.test_worker.flagging_events import START_S, STUDY, arrived, scored
from worker.flagging.study import Study
from worker.flagging.view import PartitionFold, Raw, Taken, Unfoldable

OTHER = "1.2.826.0.1.2"
EXTREMES = (1e308, 9.27e307, 1e300, 1e17, -1e308)


def raws_of(*some: StudyEvent) -> list[Raw]:
    """Records from offset 0 on."""
    return [Raw(n, START_S + n, event.key, events.encode(event)) for n, event in enumerate(some)]


def fold_of(failed: dict[int, int] | None = None) -> PartitionFold:
    """A partition that knows no study."""
    return PartitionFold(Taken(0, "me", 0, 1, inherits=False), FlaggingSettings(), 0, failed or {})


def folded(fold: PartitionFold, raws: list[Raw]) -> PartitionFold:
    """All of the records in one batch."""
    readings = fold.readings(raws)
    for uid in fold.missing(readings):
        fold.take_up(uid, None)
    fold.fold(readings, len(raws))
    return fold


@pytest.mark.parametrize("number", EXTREMES)
@pytest.mark.parametrize("name", ["position_mm", "thickness_mm", "at", "area_mm2", "centroid_mm"])
def test_a_number_that_is_no_measurement_makes_the_event_unreadable(name: str, number: float) -> None:
    """One slice at 9e307 mm once ended flagging for every study: what cannot be a patient is not read."""
    value = json.loads(events.encode(scored(1, 0.9)))
    if name in value:
        value[name] = number
    else:
        for measure in value["measures"].values():
            measure[name] = [number, 0.0] if name == "centroid_mm" else number
    with pytest.raises(DecodeError):
        events.decode_any(json.dumps(value).encode())


LENGTHS = st.floats(-FARTHEST_MM, FARTHEST_MM)
AREAS = st.floats(0.0, LARGEST_MM2)
THICK = st.floats(0.0, THICKEST_MM, exclude_min=True)


@given(st.lists(st.tuples(LENGTHS, THICK, AREAS, st.floats(0.0, 1.0)), min_size=1, max_size=6))
def test_whatever_is_within_the_bounds_can_be_folded_closed_and_written(
    slices: list[tuple[float, float, float, float]],
) -> None:
    """The bounds are tight enough: no rounding, sum or product of what passes them overflows."""
    some: list[StudyEvent] = []
    for image, (position_mm, thickness_mm, area_mm2, probability) in enumerate(slices):
        event = scored(image, probability, thickness_mm=thickness_mm)
        assert isinstance(event, events.Scored)
        sized = {label: measure.model_copy(update={"area_mm2": area_mm2}) for label, measure in event.measures.items()}
        some += [arrived(image), event.model_copy(update={"position_mm": position_mm, "measures": sized})]
    some.append(Closed(study_instance_uid=STUDY, at=START_S, after_offset=len(some) - 1))
    assert folded(fold_of(), raws_of(*some)).studies[STUDY].closed


def failing_at(monkeypatch: pytest.MonkeyPatch, study: str, offsets: set[int]) -> None:
    """A bug of ours: the study's fold fails at these offsets, after it has begun to change."""
    apply = Study.apply

    def broken(self: Study, logged: Any) -> Any:
        entries = apply(self, logged)
        if self.uid == study and logged.offset in offsets:
            raise OverflowError
        return entries

    monkeypatch.setattr(Study, "apply", broken)


def test_the_event_that_cannot_be_folded_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offset tells whoever starts again what to leave out."""
    failing_at(monkeypatch, STUDY, {1})
    with pytest.raises(Unfoldable) as told:
        folded(fold_of(), raws_of(arrived(1), scored(1), arrived(2)))
    assert told.value.offset == 1


def test_an_event_that_failed_once_is_told_as_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its study cannot end as not flagged: an event of it could not be understood."""
    failing_at(monkeypatch, STUDY, {1})
    closed = Closed(study_instance_uid=STUDY, at=START_S, after_offset=1)
    study = folded(fold_of({1: 1}), raws_of(arrived(1), scored(1), closed)).studies[STUDY]
    assert (study.item().state, study.item().reason) == (StudyState.NOT_ANALYSED, Reason.RECORD_UNREADABLE)


def test_an_event_that_failed_twice_stops_no_other_study() -> None:
    """Where even saying so fails, the record counts as unreadable and the others go on."""
    fold = fold_of({1: 2})
    raws = raws_of(arrived(1), scored(1), arrived(1, study=OTHER))
    readings = fold.readings(raws)
    assert [one.uid for one in readings] == [STUDY, "", OTHER]
    for uid in fold.missing(readings):
        fold.take_up(uid, None)
    assert fold.fold(readings, len(raws)).unreadable == 1
