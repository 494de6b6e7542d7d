"""A study is a fold over its events."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.events import Closed, Expired, StudyEvent, encode
from contracts.findings import ImageOutcome, StudyState, Urgency
from contracts.reasons import Category, Reason
from contracts.settings import FlaggingSettings
from contracts.worklist import Change, HistoryEntry
from tests.test_worker.flagging_events import (
    CERTAIN,
    LOUD,
    QUIET,
    START_S,
    STUDY,
    arrived,
    logged,
    not_analysed,
    scored,
)
from worker.flagging.stored import FrameFold
from worker.flagging.study import Logged, Study
from worker.flagging.view import Raw, Reading, frame_field, frame_of, read

RULES = FlaggingSettings()
S = StudyState


def study_of(log: Sequence[Logged]) -> Study:
    """Folds a log."""
    study = Study(STUDY, RULES)
    for entry in log:
        study.apply(entry)
    return study


def closing(study: Study) -> Closed:
    """What the timer would append now."""
    return Closed(study_instance_uid=STUDY, at=START_S, after_offset=study.fold.last_image_offset)


def close(study: Study) -> list[HistoryEntry]:
    """Closes a study over its last image."""
    return study.apply(Logged(closing(study), study.fold.offset + 1, START_S + 100))


def closed_study(*events: StudyEvent) -> Study:
    """Folds events and closes."""
    study = study_of(logged(events))
    close(study)
    return study


def word(study: Study) -> tuple[object, ...]:
    """Everything a reader sees that must not depend on order, times of append aside."""
    item = study.item().model_dump(exclude={"flagged_at"})
    stored = (image.stored_image() for image in study.images.values())
    images = sorted(image.model_dump_json(exclude={"copies"}) for image in stored)
    return (item, images, study.closed)


outcomes = st.sampled_from(
    [
        ("quiet", None),
        ("loud", None),
        ("loud", None),
        ("failed", Reason.PIXELS_UNDECODABLE),
        ("out", Reason.BODY_PART_OUT_OF_SCOPE),
        ("excluded", Reason.LOCALIZER),
        ("healed", Reason.MODEL_REFUSED),
        ("newer", None),
    ]
)


def events_of(image: int, kind: str, reason: Reason | None) -> list[StudyEvent]:
    """What log entries an image of that fate has."""
    first: list[StudyEvent] = [arrived(image)]
    if kind == "newer":
        return [*first, scored(image, LOUD, version="9"), scored(image, QUIET, version="10")]
    if kind == "healed":
        return [*first, not_analysed(image, reason or Reason.DELAYED), scored(image, LOUD)]
    if reason is not None:
        return [*first, not_analysed(image, reason)]
    return [*first, scored(image, LOUD if kind == "loud" else QUIET)]


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[StudyEvent], list[StudyEvent]]:
    """A study's events in the scanner's order, and the same shuffled, with any number of duplicates."""
    fates = draw(st.lists(outcomes, min_size=1, max_size=7))
    plain = list(itertools.chain.from_iterable(events_of(i, *fate) for i, fate in enumerate(fates)))
    doubled = plain + draw(st.lists(st.sampled_from(plain), max_size=6))
    return plain, draw(st.permutations(doubled))


@given(logs())
@settings(max_examples=150, deadline=None)
def test_any_order_and_any_duplicates_give_the_same_state(events: tuple[list[StudyEvent], list[StudyEvent]]) -> None:
    """Row, images and closing are those of the scanner's order, whatever order the network made of it."""
    plain, shuffled = (study_of(logged(some)) for some in events)
    assert word(plain) == word(shuffled)
    close(plain)
    close(shuffled)
    assert word(plain) == word(shuffled)
    assert plain.closed


@given(logs(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_prefix_replayed_twice_changes_nothing(
    events: tuple[list[StudyEvent], list[StudyEvent]], data: st.DataObject
) -> None:
    """A crash hands a prefix out again, with the same offsets: state, fold and history stay."""
    log = logged(events[1])
    cut = data.draw(st.integers(0, len(log)))
    study, history = Study(STUDY, RULES), []
    for entry in [*log[:cut], *log[:cut], *log, *log[:cut]]:
        history += study.apply(entry)
    once = Study(STUDY, RULES)
    assert history == [change for entry in log for change in once.apply(entry)]
    assert (word(study), study.fold) == (word(once), once.fold)


@given(logs(), st.data())
@settings(max_examples=100, deadline=None)
def test_a_study_taken_up_again_from_the_store_goes_on_as_if_it_had_never_left(
    events: tuple[list[StudyEvent], list[StudyEvent]], data: st.DataObject
) -> None:
    """Through the stored JSON and back at any point: the same words and the same history afterwards."""
    log = logged(events[1])
    cut = data.draw(st.integers(1, len(log)))
    stayed = study_of(log[:cut])
    images = {key: image.stored_image() for key, image in stayed.images.items()}
    frames = {
        frame_of(frame_field(key, number)): FrameFold.model_validate_json(frame.model_dump_json())
        for key, image in stayed.images.items()
        for number, frame in image.frames.items()
    }
    left = Study.stored(
        STUDY, RULES, type(stayed.fold).model_validate_json(stayed.fold.model_dump_json()), images, frames
    )
    assert word(left) == word(stayed)
    assert [left.apply(entry) for entry in log[cut:]] == [stayed.apply(entry) for entry in log[cut:]]
    assert word(left) == word(stayed)


@given(logs())
@settings(max_examples=150, deadline=None)
def test_no_study_with_a_failed_image_is_ever_not_flagged(events: tuple[list[StudyEvent], list[StudyEvent]]) -> None:
    """At no point of the log, and closed or not: a failure that no score replaced forbids *not flagged*."""
    study = Study(STUDY, RULES)
    for entry in logged(events[1]):
        study.apply(entry)
        assert study.assessment.state is not S.NOT_FLAGGED
    close(study)
    failed = [r for image in study.images.values() for r in image.reasons() if r.category is Category.FAILED]
    assert not (failed and study.assessment.state is S.NOT_FLAGGED)


@given(st.permutations(range(12)))
@settings(max_examples=60, deadline=None)
def test_a_flag_once_raised_stays_while_slices_arrive_in_any_order(order: list[int]) -> None:
    """Evidence only grows: a negative slice between two positives takes nothing back."""
    loud, flagged = {4, 5, 6}, False
    study = Study(STUDY, RULES)
    for entry in logged(scored(i, LOUD if i in loud else QUIET) for i in order):
        study.apply(entry)
        assert study.assessment.state is S.FLAGGED or not flagged
        flagged = study.assessment.state is S.FLAGGED
    assert flagged


def test_a_study_is_receiving_until_it_closes_and_provisional_until_then() -> None:
    """Nothing is called normal while images may still come."""
    study = study_of(logged([arrived(0), scored(0), arrived(1), scored(1)]))
    assert (study.assessment.state, study.assessment.provisional) == (S.RECEIVING, True)
    close(study)
    assert (study.assessment.state, study.assessment.provisional) == (S.NOT_FLAGGED, False)


def test_a_flag_comes_with_the_second_agreeing_slice_while_the_scanner_still_sends() -> None:
    """The study is critical and provisional long before its last image."""
    study = study_of(logged([arrived(0), scored(0, LOUD), arrived(1), scored(1, LOUD), arrived(2)]))
    item = study.item()
    assert (item.state, item.provisional, item.urgency) == (S.FLAGGED, True, Urgency.CRITICAL)
    assert (item.images_received, item.images_settled) == (3, 2)
    assert item.rank == item.arrived_at == START_S


@pytest.mark.parametrize(
    ("reasons", "state", "reason"),
    [
        ([Reason.BODY_PART_OUT_OF_SCOPE] * 2, S.NOT_ANALYSED, Reason.BODY_PART_OUT_OF_SCOPE),
        ([Reason.BODY_PART_OUT_OF_SCOPE, Reason.LOCALIZER], S.NOT_ANALYSED, Reason.BODY_PART_OUT_OF_SCOPE),
        ([Reason.BODY_PART_OUT_OF_SCOPE, Reason.SPACING_OUT_OF_SCOPE], S.NOT_ANALYSED, Reason.NOTHING_IN_SCOPE),
        ([Reason.LOCALIZER, Reason.LOCALIZER], S.NOT_ANALYSED, Reason.LOCALIZER),
        ([Reason.LOCALIZER, Reason.DERIVED], S.NOT_ANALYSED, Reason.NOTHING_IN_SCOPE),
        ([Reason.PIXELS_UNDECODABLE, Reason.LOCALIZER], S.NOT_ANALYSED, Reason.PIXELS_UNDECODABLE),
    ],
)
def test_a_closed_study_without_a_score_says_why(reasons: list[Reason], state: S, reason: Reason) -> None:
    """One reason where all agree; excluded images are asked only when there are no others."""
    study = closed_study(*(not_analysed(place, reason) for place, reason in enumerate(reasons)))
    assert (study.assessment.state, study.assessment.reason) == (state, reason)


def test_out_of_scope_images_beside_scored_ones_are_a_note_and_excluded_ones_are_nothing() -> None:
    """A head CT with a neck series and a scout is not flagged, and says that part of it was not looked at."""
    others = [not_analysed(7, Reason.BODY_PART_OUT_OF_SCOPE), not_analysed(8, Reason.LOCALIZER)]
    study = closed_study(scored(0), scored(1), *others)
    assert study.assessment.state is S.NOT_FLAGGED
    assert study.assessment.notes == (Reason.BODY_PART_OUT_OF_SCOPE,)


def test_flagged_wins_over_not_analysed_and_the_failure_is_a_note() -> None:
    """A failed image neither hides a bleed nor is hidden by it."""
    study = closed_study(scored(0, LOUD), scored(1, LOUD), not_analysed(2, Reason.PIXELS_UNDECODABLE))
    assert study.assessment.state is S.FLAGGED
    assert study.assessment.notes == (Reason.PIXELS_UNDECODABLE,)


def test_settlements_count_what_is_in_effect() -> None:
    """Waiting is 0; a first settling is 1; an equal redelivery and a later revision leave it at 1."""
    study = study_of(logged([arrived(0)]))
    image = next(iter(study.images.values()))
    assert (image.item().settlements, image.item().outcome) == (0, None)
    for event in (not_analysed(0, Reason.MODEL_REFUSED), scored(0), scored(0), scored(0, LOUD, version="2")):
        study.apply(Logged(event, study.fold.offset + 1, START_S))
        assert image.item().settlements == 1
    assert image.item().outcome is ImageOutcome.SCORED
    assert image.item().probability == LOUD


def test_an_equal_redelivery_does_not_move_the_fence_and_a_revision_does() -> None:
    """A resent study can still be closed by a timer that saw it before the resend."""
    study = study_of(logged([arrived(0), scored(0), arrived(0), scored(0)]))
    assert study.fold.last_image_offset == 1
    study.apply(Logged(scored(0, version="2"), 4, START_S))
    assert study.fold.last_image_offset == 4


def test_the_newest_version_counts_as_a_number_and_not_as_a_word() -> None:
    """Version 10 is newer than 9."""
    study = study_of(logged([scored(0, LOUD, version="10"), scored(0, QUIET, version="9")]))
    assert study.item().models == ("head_ct_lesion:10",)


def test_the_same_uid_with_other_pixels_is_a_second_image_and_a_note() -> None:
    """Both pictures are kept and scored; the reader is told."""
    study = closed_study(arrived(0), scored(0), arrived(0, pixels="b"), scored(0, pixels="b"))
    assert len(study.images) == 2
    assert study.assessment.notes == (Reason.SAME_UID_OTHER_PIXELS,)


def test_images_of_two_patients_in_one_study_are_a_note() -> None:
    """The row has one name: the reader is told that another was sent. An absent Patient ID names nobody."""
    study = closed_study(arrived(0), scored(0), arrived(1, patient_id="815"), scored(1), arrived(2, patient_id="9"))
    assert study.assessment.notes == (Reason.SAME_STUDY_OTHER_PATIENT,)
    alike = closed_study(arrived(0, patient_id=""), scored(0), arrived(1), scored(1))
    assert alike.assessment.notes == ()


def test_a_score_without_an_arrival_implies_it() -> None:
    """The image is received and settled, and its arrival fills in the rest without opening the study again."""
    study = closed_study(scored(0), scored(1))
    assert study.item().images_received == study.item().images_settled == 2
    study.apply(Logged(arrived(0), 9, START_S))
    assert (study.closed, study.item().patient.patient_id, study.item().arrived_at) == (True, "4711", START_S)


def test_a_timer_that_missed_an_image_closes_nothing() -> None:
    """A zombie's Closed carries an older fence and is ignored."""
    study = study_of(logged([arrived(0), scored(0)]))
    zombie = closing(study)
    for event in (arrived(1), scored(1), zombie):
        study.apply(Logged(event, study.fold.offset + 1, START_S))
    assert not study.closed
    close(study)
    assert study.closed


def test_a_timer_that_missed_a_revision_closes_nothing() -> None:
    """The final word is not given over a score that the timer had not seen."""
    study = study_of(logged([arrived(0), scored(0)]))
    zombie = closing(study)
    for event in (scored(0, LOUD, version="2"), zombie):
        study.apply(Logged(event, study.fold.offset + 1, START_S))
    assert not study.closed


def test_a_closed_study_with_an_unsettled_image_does_not_exist() -> None:
    """Even a Closed with the right fence waits for the settlement."""
    study = study_of(logged([arrived(0)]))
    close(study)
    assert not study.closed
    study.apply(Logged(scored(0), 9, START_S))
    assert study.closed


def test_a_late_image_opens_the_study_again_and_can_flag_it() -> None:
    """Closed as not flagged, open again, flagged, closed: each told once."""
    study = closed_study(scored(0, LOUD))
    assert study.assessment.state is S.NOT_FLAGGED
    told = [
        change.change
        for event in (arrived(1), scored(1, LOUD))
        for change in study.apply(Logged(event, study.fold.offset + 1, START_S))
    ]
    assert told == [Change.REVISED, Change.FLAGGED]
    assert [entry.change for entry in close(study)] == [Change.CLOSED]
    assert (study.assessment.state, study.assessment.provisional) == (S.FLAGGED, False)


def test_a_flag_that_a_newer_model_takes_back_is_withdrawn_and_the_rank_returns() -> None:
    """The withdrawal is an entry of the history, and the study stands where a routine one would."""
    study = study_of(logged([arrived(0), scored(0, LOUD), arrived(1), scored(1, LOUD)]))
    assert study.item().flagged_at is not None
    told = study.apply(Logged(scored(1, QUIET, version="2"), 9, START_S + 9))
    assert [entry.change for entry in told] == [Change.WITHDRAWN]
    item = study.item()
    assert (item.state, item.urgency, item.flagged_at) == (S.RECEIVING, Urgency.ROUTINE, None)
    assert item.rank == item.arrived_at + RULES.overtake_s[Urgency.ROUTINE]


def test_past_its_deadline_a_study_is_not_analysed_and_revised_when_the_score_comes() -> None:
    """Delayed while it waits; no longer once all is settled."""
    study = study_of(logged([arrived(0), scored(0), arrived(1)]))
    told = study.apply(Logged(Expired(study_instance_uid=STUDY, at=START_S, after_offset=2), 3, START_S + 300))
    assert [(entry.change, entry.reason) for entry in told] == [(Change.REVISED, Reason.DELAYED)]
    assert (study.assessment.state, study.closed) == (S.NOT_ANALYSED, False)
    told = study.apply(Logged(scored(1), 4, START_S + 400))
    assert [(entry.change, entry.state) for entry in told] == [(Change.REVISED, S.RECEIVING)]
    close(study)
    assert study.assessment.state is S.NOT_FLAGGED


def test_an_expiry_that_missed_an_image_is_ignored() -> None:
    """A new image starts the deadline anew."""
    study = study_of(logged([arrived(0), arrived(1), Expired(study_instance_uid=STUDY, at=START_S, after_offset=0)]))
    assert study.assessment.state is S.RECEIVING


def test_a_multi_frame_image_is_one_image_settled_when_all_its_frames_are() -> None:
    """Enhanced CT: three frames, one row, and its frames agree as slices do."""
    events = [arrived(0, frames=3), *(scored(0, LOUD, frame=frame, frames=3) for frame in (2, 0))]
    study = study_of(logged(events))
    assert (study.item().images_received, study.item().images_settled) == (1, 0)
    study.apply(Logged(scored(0, LOUD, frame=1, frames=3), 9, START_S))
    assert (study.item().images_received, study.item().images_settled) == (1, 1)
    assert study.item().findings[0].sop_instance_uids == (f"{STUDY}.1.0",)


def test_an_unreadable_event_makes_the_study_not_analysed_until_it_is_sent_again() -> None:
    """Whatever it said, nobody read it."""
    study = study_of(logged([scored(0), scored(1)]))
    lost = scored(2)
    study.apply_unreadable(lost.key, 2, START_S)
    close(study)
    assert (study.assessment.state, study.assessment.reason) == (S.NOT_ANALYSED, Reason.RECORD_UNREADABLE)
    study.apply(Logged(lost, 9, START_S))
    close(study)
    assert study.assessment.state is S.NOT_FLAGGED


def test_a_single_slice_is_flagged_only_near_certainty_and_only_when_closed() -> None:
    """It has no neighbour to agree with: while it may still get one, it waits."""
    certain = study_of(logged([scored(0, CERTAIN)]))
    assert certain.assessment.state is S.RECEIVING
    assert [entry.change for entry in close(certain)] == [Change.FLAGGED, Change.CLOSED]
    assert closed_study(scored(0, LOUD)).assessment.state is S.NOT_FLAGGED


def test_compaction_of_redelivered_events_leads_to_the_same_closed_study() -> None:
    """The topic keeps the newest record of a key: the fold of what is left ends in the same words."""
    whole = [arrived(0), scored(0), arrived(1), scored(1)]
    study = study_of(logged(whole))
    late = [closing(study), arrived(0), scored(1)]
    full = logged([*whole, *late])
    newest = {entry.event.key: entry.offset for entry in full}
    compacted = [entry for entry in full if newest[entry.event.key] == entry.offset]
    assert len(compacted) < len(full)
    assert word(study_of(compacted)) == word(study_of(full))


@pytest.mark.parametrize(
    ("key", "uid"), [(b"1.2.3|closed", "1.2.3"), (b"closed", ""), (b"", ""), (f"{STUDY}0|closed".encode(), f"{STUDY}0")]
)
def test_an_event_under_another_studys_key_is_unreadable(key: bytes, uid: str) -> None:
    """Found by fuzzing: it came into another partition, and two owners wrote one study until nobody could read it."""
    value = encode(arrived(0))
    assert read(Raw(0, START_S, key, value)) == Reading(Raw(0, START_S, key, value), uid, None)
    sound = Raw(0, START_S, arrived(0).key, value)
    assert read(sound) == Reading(sound, STUDY, arrived(0))
