"""What is acknowledged is a debt, once; what was seen is remembered as it was."""

import json
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from chaos.answers import Listed, ListTold, StudyTold
from chaos.ledger import Ledger, is_finding
from chaos.logged import Audited, EventKey, Letter, LogTold
from chaos.sightings import Sightings
from contracts.events import Arrived, NotAnalysed, Scored
from contracts.findings import ImageOutcome, Label, Measure, StudyState, Urgency
from contracts.reasons import Reason
from contracts.worklist import Change, HistoryEntry, ImageItem, StudyDetail
from tests.test_chaos.told import sent

STUDY, SERIES, SOP, DIGEST = "1.2.3", "1.2.3.4", "1.2.3.5", "d" * 64


def listed(uid: str, state: str = "receiving", *, closed: bool = False, waiting: int = 0) -> Listed:
    """One line of the list."""
    return Listed(uid, 1, state, closed, waiting)


def a_list(*items: Listed, status: str = "ok", pages: int = 1) -> ListTold:
    """The list with these lines."""
    return ListTold(status, pages, items)


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_an_image_is_owed_once_from_its_first_acknowledgement(told: list[tuple[int, bool]]) -> None:
    """However often it is acknowledged or given up, before or after: acknowledged once is owed."""
    pictures = [picture for study in sent() for picture in study.pictures][:10]
    ledger = Ledger(sent())
    for at_s, (nth, success) in enumerate(told):
        if success:
            ledger.acknowledge(pictures[nth], float(at_s))
        else:
            ledger.give_up(pictures[nth])
    first = {nth: at_s for at_s, (nth, success) in reversed(list(enumerate(told))) if success}
    assert {one.picture.digest: one.at_s for one in ledger.acknowledged} == {
        pictures[nth].digest: float(at_s) for nth, at_s in first.items()
    }
    assert {picture.digest for picture in ledger.given_up} == {pictures[n].digest for n, ok in told if not ok} - {
        pictures[n].digest for n, ok in told if ok
    }
    assert ledger.answers == sum(ok for _, ok in told)


def test_one_slice_is_no_finding_and_two_pictures_of_it_are_one_witness() -> None:
    """Two neighbours with a lesion flag a study; one slice twice, or two far apart, do not."""
    sick = next(study for study in sent() if is_finding(study.pictures))
    first, second, *_ = [picture for picture in sick.pictures if picture.lesion]
    assert is_finding([first, second])
    assert not is_finding([first, replace(first, digest="other")])
    assert not is_finding([first, replace(second, nth=first.nth + 3)])
    assert not is_finding([first, replace(second, lesion=False)])


def test_only_a_list_that_says_ok_can_miss_a_study() -> None:
    """Degraded and rebuilding lists may be short; one that claims to be complete may not, once a study was seen."""
    seen = Sightings(["a", "b"])
    assert seen.read(a_list(listed("a"), status="rebuilding"), 1.0) == set()
    assert seen.read(a_list(status="degraded"), 2.0) == set()
    assert seen.read(a_list(), 3.0) == {"a"}
    assert seen.study("a").first_s == 1.0
    assert seen.study("b").first_s is None
    assert seen.statuses == {"rebuilding": 1, "degraded": 1, "ok": 1}


def test_a_flag_is_lowered_only_between_complete_lists() -> None:
    """While the view is rebuilt a flag may be missing; from one complete list to the next it may not."""
    seen = Sightings(["a"])
    for state, status in (("flagged", "ok"), ("receiving", "rebuilding"), ("flagged", "ok")):
        seen.read(a_list(listed("a", state), status=status), 1.0)
    assert seen.study("a").lowered == 0
    seen.read(a_list(listed("a", "receiving")), 2.0)
    assert seen.study("a").lowered == 1
    assert seen.study("a").flagged_s == 1.0


def test_a_study_is_hollow_where_it_is_called_normal_and_waits() -> None:
    """Whatever the status: one line of the list must not contradict itself."""
    seen = Sightings(["a"])
    for state, waits in (("not_flagged", 0), ("flagged", 1), ("receiving", 1)):
        seen.read(a_list(listed("a", state, waiting=waits)), 1.0)
    assert seen.study("a").hollow == 0
    seen.read(a_list(listed("a", "not_flagged", waiting=1), status="rebuilding"), 2.0)
    assert seen.study("a").hollow == 1


def test_a_study_on_two_pages_has_moved_and_on_one_page_is_doubled() -> None:
    """Pages are read at different moments."""
    seen = Sightings(["a"])
    seen.read(a_list(listed("a"), listed("a"), pages=2), 1.0)
    assert seen.study("a").doubled == 0
    seen.read(a_list(listed("a"), listed("a", closed=True)), 1.0)
    assert seen.study("a").doubled == 1
    assert seen.closed("a")


def test_live_events_are_counted_once_and_anew_after_a_reset() -> None:
    """A repeated id is the same event; a withdrawal, or a gap in the stream, lets the next flag be new."""
    seen = Sightings(["a"])
    for event_id, change in (("1", "flagged"), ("1", "flagged"), ("2", "withdrawn"), ("3", "flagged")):
        seen.live(event_id, change, "a")
    seen.reset()
    seen.live("1", "flagged", "a")
    seen.live("2", "flagged", "not ours")
    assert seen.study("a").told_flagged == 1
    seen.live("2", "flagged", "a")
    assert seen.study("a").told_flagged == 2


def test_answers_are_read_as_the_service_writes_them() -> None:
    """A StudyDetail as flagging stores it becomes what the checks look at."""
    detail = StudyDetail(
        study_instance_uid=STUDY,
        state=StudyState.NOT_ANALYSED,
        provisional=False,
        reason=Reason.DELAYED,
        urgency=Urgency.ROUTINE,
        images_received=1,
        images_settled=1,
        arrived_at=1.0,
        due_at=2.0,
        rank=3.0,
        closed=True,
        notes=(Reason.SAME_UID_OTHER_PIXELS,),
        images=(
            ImageItem(sop_instance_uid=SOP, digest=DIGEST, outcome=ImageOutcome.SCORED, settlements=1),
            ImageItem(sop_instance_uid=SOP, digest="e", reason=None),
        ),
        history=(
            HistoryEntry(
                at=1.0,
                offset=7,
                change=Change.FLAGGED,
                state=StudyState.FLAGGED,
                provisional=True,
                urgency=Urgency.CRITICAL,
            ),
        ),
    )
    told = StudyTold.of(json.loads(detail.model_dump_json()))
    assert (told.state, told.reason, told.closed) == ("not_analysed", "delayed", True)
    assert told.notes == ("same_uid_other_pixels",)
    assert [(row.digest, row.outcome, row.settlements) for row in told.rows] == [(DIGEST, "scored", 1), ("e", None, 0)]
    assert [(entry.offset, entry.change, entry.state) for entry in told.history] == [(7, "flagged", "flagged")]


def test_a_list_is_as_good_as_its_worst_page() -> None:
    """One degraded page makes the whole list degraded."""
    item = {"study_instance_uid": STUDY, "position": 1, "state": "flagged", "closed": True}
    item |= {"images_received": 3, "images_settled": 2}
    good, bad = {"status": "ok", "items": [item]}, {"status": "degraded", "items": []}
    assert ListTold.of([good, bad]).status == "degraded"
    assert ListTold.of([good]) == ListTold("ok", 1, (Listed(STUDY, 1, "flagged", closed=True, waiting=1),))


def test_keys_of_the_log_are_read_as_the_events_write_them() -> None:
    """Study, kind, image and pixels of every image event; other events are no images."""
    image = {"study_instance_uid": STUDY, "series_instance_uid": SERIES, "sop_instance_uid": SOP}
    common = {**image, "pixel_digest": DIGEST, "at": 1.0}
    measure = Measure(probability=0.5, threshold=0.5)
    scored = {"model": "m", "model_version": "1", "measures": {Label.ANY: measure}}
    keys = [
        Arrived(**common, sop_class_uid="1.2", digest="x").key,
        Scored(**common, **scored, position_mm=1.0, thickness_mm=1.0).key,
        NotAnalysed(**common, reason=Reason.DELAYED).key,
        f"{STUDY}|closed".encode(),
    ]
    audit = json.dumps({"study_instance_uid": STUDY, "offset": 7, "change": "flagged", "at": 1.0}).encode()
    letter = (("reason", b"x"), ("study_instance_uid", STUDY.encode()), ("sop_instance_uid", SOP.encode()))
    told = LogTold.of(keys, [audit, audit], [(*letter, ("digest", DIGEST.encode())), letter, (("digest", None),)])
    assert {(key.kind, key.sop_instance_uid, key.pixel_digest, key.rest) for key in told.keys} == {
        ("arrived", SOP, DIGEST, ()),
        ("scored", SOP, DIGEST, ("0", "m", "1")),
        ("not_analysed", SOP, DIGEST, ("",)),
    }
    assert {key.study_instance_uid for key in told.keys} == {STUDY}
    assert told.audit == {Audited(STUDY, 7, "flagged")}
    assert told.letters == {Letter(STUDY, SOP, DIGEST), Letter(STUDY, SOP, ""), Letter("", "", "")}
    assert EventKey.of(keys[-1]) is None
