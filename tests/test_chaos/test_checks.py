"""Each invariant's check fires on a violation that is made for it, and is silent when all is well."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.answers import Entry, StudyTold
from chaos.checks import Case, counts, settled_by, unended, violations, waiting
from chaos.invariants import CHECKS
from chaos.ledger import Action, Ledger
from tests.test_chaos.told import list_of, log_of, one, sent, sound, told, with_answer


def answer_of(case: Case, uid: str) -> StudyTold:
    """It is there."""
    found = case.answers[uid]
    assert found is not None
    return found


def spoilt_row(case: Case, state: str = "not_flagged", **changed: object) -> Case:
    """One image of a study told differently."""
    uid = one(case, state)
    first, *others = answer_of(case, uid).rows
    return with_answer(case, uid, rows=(replace(first, **changed), *others))  # type: ignore[arg-type]  # fields by name


def without_row(case: Case) -> Case:
    """One image gone."""
    uid = one(case, "flagged")
    return with_answer(case, uid, rows=answer_of(case, uid).rows[1:])


def row_twice(case: Case) -> Case:
    """One image twice."""
    uid = one(case, "flagged")
    return with_answer(case, uid, rows=(*answer_of(case, uid).rows, answer_of(case, uid).rows[0]))


def unsent_row(case: Case) -> Case:
    """An image that nobody sent."""
    uid = one(case, "flagged")
    rows = answer_of(case, uid).rows
    return with_answer(case, uid, rows=(*rows, replace(rows[0], digest="0" * 64)))


def history(case: Case, *changes: str, state: str = "flagged") -> Case:
    """Another history."""
    return with_answer(case, one(case, state), history=tuple(Entry(n, c, state) for n, c in enumerate(changes)))


def entry_twice(case: Case) -> Case:
    """The same entry appended twice."""
    uid = one(case, "not_flagged")
    return with_answer(case, uid, history=answer_of(case, uid).history + answer_of(case, uid).history[-1:])


def untold(case: Case) -> Case:
    """A study that does not say that one UID came with two pictures."""
    uid = next(uid for uid, answer in case.answers.items() if answer and answer.notes)
    return with_answer(case, uid, notes=())


def gone(case: Case) -> Case:
    """A study that nobody knows any more."""
    return replace(case, answers={**case.answers, one(case, "flagged"): None})


def unlisted(case: Case) -> Case:
    """A study that is not in the list."""
    return replace(case, listed=list_of([a for a in case.answers.values() if a][1:]))


def listed_twice(case: Case) -> Case:
    """A study that is in the list twice."""
    told_all = [a for a in case.answers.values() if a]
    return replace(case, listed=list_of([*told_all, told_all[0]]))


def vanished_meanwhile(case: Case) -> Case:
    """A study that a complete list left out."""
    uid = one(case, "flagged")
    others = [a for a in case.answers.values() if a and a.study_instance_uid != uid]
    case.sightings.vanished(case.sightings.read(list_of(others), 2.0))
    return case


def doubled_meanwhile(case: Case) -> Case:
    """A study that was in one list twice."""
    case.sightings.read(listed_twice(case).listed, 2.0)
    return case


def lowered_meanwhile(case: Case) -> Case:
    """A flag that was gone for one list."""
    uid = one(case, "flagged")
    case.sightings.read(list_of([replace(answer_of(case, uid), state="receiving")]), 2.0)
    return case


def hollow_meanwhile(case: Case) -> Case:
    """A study that was called normal while an image of it waited."""
    told_so = list_of([answer_of(case, one(case, "not_flagged"))])
    case.sightings.read(replace(told_so, status="degraded", items=(replace(told_so.items[0], waiting=1),)), 2.0)
    return case


def flag_lost(case: Case) -> Case:
    """A flag that was seen and is gone."""
    return with_answer(case, one(case, "flagged"), state="not_analysed", reason="delayed")


def flagged_live_twice(case: Case) -> Case:
    """Readers are told twice."""
    for event_id in ("1-0", "2-0"):
        case.sightings.live(event_id, "flagged", one(case, "flagged"))
    return case


def action_lost(case: Case) -> Case:
    """A reader's action that is in no history."""
    case.ledger.act(Action(one(case, "flagged"), "a1"))
    return case


def not_audited(case: Case) -> Case:
    """A flag that the audit trail does not know."""
    assert case.log is not None
    return replace(case, log=replace(case.log, audit=frozenset()))


def key_missing(case: Case, kind: str) -> Case:
    """One event less in the log."""
    assert case.log is not None
    gone_key = next(key for key in sorted(case.log.keys, key=str) if key.kind == kind)
    return replace(case, log=replace(case.log, keys=case.log.keys - {gone_key}))


def key_twice(case: Case) -> Case:
    """An image scored under two keys."""
    assert case.log is not None
    scored = next(key for key in case.log.keys if key.kind == "scored")
    return replace(case, log=replace(case.log, keys=case.log.keys | {replace(scored, rest=("1",))}))


def unburied(case: Case) -> Case:
    """An image that no decoder reads, without its dead letter."""
    assert case.log is not None
    return replace(case, log=replace(case.log, letters=frozenset()))


def silent_lesion(case: Case) -> Case:
    """A lesion that was scored and is called normal, although nobody had seen it flagged."""
    uid = one(case, "flagged")
    fresh = sound()
    case = with_answer(case, uid, state="not_flagged", history=answer_of(case, uid).history[::2])
    return replace(case, sightings=type(fresh.sightings)(case.ledger.studies))


# What is spoilt, and every invariant that must speak.
SPOILT: dict[str, tuple[Callable[[Case], Case], set[str]]] = {
    "an acknowledged image has no row": (without_row, {"I1"}),
    "an image has two rows": (row_twice, {"I1"}),
    "a row for what nobody sent": (unsent_row, {"I1"}),
    "an image waits": (lambda c: spoilt_row(c, outcome=None, settlements=0), {"I1", "I7"}),
    "an image was settled twice": (lambda c: spoilt_row(c, settlements=2), {"I1"}),
    "a payload is gone": (
        lambda c: spoilt_row(c, "flagged", outcome="not_analysed", reason="payload_missing"),
        {"I1"},
    ),
    "the log has no arrival": (lambda c: key_missing(c, "arrived"), {"I1"}),
    "the log has no outcome": (lambda c: key_missing(c, "scored"), {"I1"}),
    "the log has two outcomes": (key_twice, {"I1"}),
    "a dead letter is swallowed": (unburied, {"I1"}),
    "other pixels are not told": (untold, {"I1"}),
    "a study is gone": (gone, {"I1", "I2"}),
    "a study is not listed": (unlisted, {"I2"}),
    "a study is open": (lambda c: with_answer(c, one(c, "not_flagged"), closed=False), {"I2"}),
    "a study is receiving": (lambda c: with_answer(c, one(c, "not_flagged"), state="receiving"), {"I2"}),
    "a study was missing meanwhile": (vanished_meanwhile, {"I2"}),
    "a scored study is not analysed": (
        lambda c: with_answer(c, one(c, "not_flagged"), state="not_analysed", reason="delayed"),
        {"I2"},
    ),
    "a study is listed twice": (listed_twice, {"I3"}),
    "a study was listed twice meanwhile": (doubled_meanwhile, {"I3"}),
    "an entry of the history is there twice": (entry_twice, {"I3"}),
    "a study is received twice": (lambda c: history(c, "received", "received", "flagged", "closed"), {"I3"}),
    "a study is flagged twice": (lambda c: history(c, "received", "flagged", "flagged", "closed"), {"I3", "I4"}),
    "readers are told twice": (flagged_live_twice, {"I3"}),
    "a flag without a lesion": (
        lambda c: history(with_answer(c, one(c, "not_flagged"), state="flagged"), "received", "flagged"),
        {"I3", "I4"},
    ),
    "a flag is lost": (flag_lost, {"I2", "I4"}),
    "a flag was lowered meanwhile": (lowered_meanwhile, {"I4"}),
    "a flag has no history": (lambda c: history(c, "received", "closed"), {"I4"}),
    "a flag is not audited": (not_audited, {"I4"}),
    "an action is lost": (action_lost, {"I5"}),
    "a lesion looks normal": (silent_lesion, {"I4", "I7"}),
    "a study looks normal too soon": (hollow_meanwhile, {"I7"}),
    "a failed image in a normal study": (
        lambda c: spoilt_row(c, outcome="not_analysed", reason="model_refused"),
        {"I1", "I7"},
    ),
    "an image left out of a normal study": (lambda c: spoilt_row(c, outcome="excluded", reason="localizer"), {"I7"}),
    "an unknown reason in a normal study": (lambda c: spoilt_row(c, outcome="not_analysed", reason="?"), {"I7"}),
    "a poisoned study looks normal": (lambda c: with_answer(c, one(c, "not_analysed"), state="not_flagged"), {"I7"}),
}


def test_a_sound_run_violates_nothing() -> None:
    """Everything acknowledged, settled once, told once: no check speaks, and the counts say so."""
    case = sound()
    assert violations(case) == ()
    told_counts = counts(case)
    assert told_counts.acknowledged == told_counts.settled == sum(len(s.pictures) for s in sent())
    assert (told_counts.lost, told_counts.doubled, told_counts.silent_normals, told_counts.actions_lost) == (0, 0, 0, 0)


@pytest.mark.parametrize("name", SPOILT)
def test_a_violation_is_told_by_its_invariants_and_by_no_other(name: str) -> None:
    """One thing is spoilt: exactly the invariants that it breaks speak, and name a study of the run."""
    spoil, expected = SPOILT[name]
    spoken = violations(spoil(sound()))
    assert {sentence.split()[0] for sentence in spoken} == expected
    assert all(any(f"study {uid}" in sentence for uid in sound().ledger.studies) for sentence in spoken)


def test_every_check_is_made_to_speak() -> None:
    """There is no check that never fails."""
    spoken = {check for check in CHECKS for spoil, _ in SPOILT.values() if any(check(spoil(sound())))}
    assert spoken == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("an acknowledged image has no row", "lost"),
        ("an image waits", "lost"),
        ("a payload is gone", "lost"),
        ("an image has two rows", "doubled"),
        ("an image was settled twice", "doubled"),
        ("a poisoned study looks normal", "silent_normals"),
        ("an action is lost", "actions_lost"),
    ],
)
def test_a_violation_is_counted(name: str, field: str) -> None:
    """The numbers of the outcome say how many."""
    assert getattr(counts(SPOILT[name][0](sound())), field) == 1


def test_what_was_never_acknowledged_is_no_debt() -> None:
    """A study of which nothing was acknowledged may be missing; one half of which was is held to that half."""
    case = sound()
    ledger = Ledger(sent())
    some = sent()[0].pictures[:2]
    for picture in some:
        ledger.acknowledge(picture, 0.0)
    uid = some[0].study_instance_uid
    case = replace(case, ledger=ledger, answers={uid: case.answers[uid]}, log=None)
    assert violations(case) == ()
    assert {sentence.split()[0] for sentence in violations(replace(case, answers={uid: None}))} == {"I1", "I2"}


def test_a_study_that_waits_for_a_half_sent_image_need_not_close() -> None:
    """Its sender gave up: what came of it waits for ever, and the study says not analysed (delayed)."""
    case = sound()
    study = next(s for s in sent() if told(s).state == "not_flagged")
    ledger = Ledger(sent())
    for picture in study.pictures[1:]:
        ledger.acknowledge(picture, 0.0)
    answer = told(study)
    waits = replace(answer.rows[0], outcome=None, settlements=0)
    stuck = replace(answer, state="not_analysed", reason="delayed", closed=False, rows=(waits, *answer.rows[1:]))
    case = replace(case, ledger=ledger, answers={study.study_instance_uid: stuck}, log=None)
    assert violations(case) == ()
    assert unended(ledger, case.answers) == []


def test_recovery_asks_for_what_was_acknowledged_before_the_end_of_the_fault() -> None:
    """I6: an image that was acknowledged later may still wait."""
    case = spoilt_row(sound(), "flagged", outcome=None)
    uid = one(case, "flagged")
    at_s = next(o.at_s for o in case.ledger.acknowledged if o.picture.study_instance_uid == uid)
    assert settled_by(case.ledger, case.answers, at_s - 0.5)
    assert not settled_by(case.ledger, case.answers, at_s)
    assert [key[0] for key in waiting(case.ledger, case.answers, at_s)] == [uid]
    assert unended(case.ledger, case.answers) == [uid]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_losing_any_image_is_told_and_nothing_else_is(data: st.DataObject) -> None:
    """Whichever rows go missing, I1 names exactly those images."""
    case = sound()
    uid = data.draw(st.sampled_from(sorted(case.answers)))
    rows = answer_of(case, uid).rows
    gone_rows = data.draw(st.sets(st.sampled_from(range(len(rows))), min_size=1))
    case = with_answer(case, uid, rows=tuple(row for nth, row in enumerate(rows) if nth not in gone_rows))
    told_of = [sentence for sentence in violations(case) if sentence.startswith("I1")]
    assert sorted(sentence.split(" image ")[1].split()[0] for sentence in told_of) == sorted(
        rows[nth].sop_instance_uid for nth in gone_rows
    )
    assert counts(case).lost == len(gone_rows)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["flagged", "withdrawn", "revised", "closed"]), max_size=8))
def test_flags_alternate_with_withdrawals(changes: list[str]) -> None:
    """I3 speaks exactly where two flags follow each other with no withdrawal between them."""
    case = sound()
    case = replace(history(case, "received", *changes), log=log_of(sent()))
    flags = [change for change in changes if change in ("flagged", "withdrawn")]
    twice = any(pair == ("flagged", "flagged") for pair in pairwise(flags))
    assert any("flagged again" in sentence for sentence in violations(case)) is twice
