"""A sound end of a run, made from what was sent: tests then spoil one thing in it."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cache

from chaos.answers import Entry, Listed, ListTold, Row, StudyTold
from chaos.checks import Case
from chaos.ledger import Ledger, is_finding, key_of
from chaos.logged import Audited, EventKey, Letter, LogTold
from chaos.phantoms import Head, Picture, heads
from chaos.scenario import Load
from chaos.sightings import Sightings

SEED = 2  # of which the poisoned study has no lesion
SMALL = Load(studies=4, images=(6, 6), positive=0.5, poison=1, other_bytes=1, large=0.0)


@cache
def sent(seed: int = SEED) -> tuple[Head, ...]:
    """The studies of a small load."""
    return heads(SMALL, seed, "told")


def row(picture: Picture) -> Row:
    """As a sound service tells of it."""
    if picture.readable:
        return Row(picture.sop_instance_uid, picture.digest, "scored", None, 1)
    return Row(picture.sop_instance_uid, picture.digest, "not_analysed", "pixels_undecodable", 1)


def end_of(study: Head) -> str:
    """The state that a sound service gives it."""
    if is_finding(study.pictures):
        return "flagged"
    return "not_flagged" if all(picture.readable for picture in study.pictures) else "not_analysed"


def told(study: Head) -> StudyTold:
    """The whole answer."""
    state = end_of(study)
    changes = ["received", *(["flagged"] if state == "flagged" else []), "closed"]
    history = tuple(Entry(10 * nth, change, state) for nth, change in enumerate(changes))
    reason = "pixels_undecodable" if state == "not_analysed" else None
    rows = tuple(map(row, study.pictures))
    twice = len({picture.sop_instance_uid for picture in study.pictures}) < len(study.pictures)
    notes = ("same_uid_other_pixels",) if twice else ()
    return StudyTold(study.study_instance_uid, state, reason, closed=True, rows=rows, history=history, notes=notes)


def list_of(answers: Iterable[StudyTold], status: str = "ok") -> ListTold:
    """One page of them."""
    items = tuple(Listed(a.study_instance_uid, n, a.state, a.closed, 0) for n, a in enumerate(answers, start=1))
    return ListTold(status, 1, items)


def log_of(studies: Iterable[Head]) -> LogTold:
    """What lies in the log of a sound run."""
    keys, audit, letters = set(), set(), set()
    for study in studies:
        for picture in study.pictures:
            uid, sop, digest = key_of(picture)
            kind = "scored" if picture.readable else "not_analysed"
            keys |= {EventKey(uid, "arrived", sop, digest, ()), EventKey(uid, kind, sop, digest, ("0",))}
            letters |= set() if picture.readable else {Letter(uid, sop, digest)}
        entries = told(study).history
        audit |= {Audited(study.study_instance_uid, entry.offset, entry.change) for entry in entries}
    return LogTold(frozenset(keys), frozenset(audit), frozenset(letters))


def sound(studies: tuple[Head, ...] | None = None) -> Case:
    """A run in which all went well: everything acknowledged, seen and ended."""
    studies = studies or sent()
    ledger = Ledger(studies)
    for nth, picture in enumerate(picture for study in studies for picture in study.pictures):
        ledger.acknowledge(picture, float(nth))
    answers = {study.study_instance_uid: told(study) for study in studies}
    sightings = Sightings(ledger.studies)
    sightings.read(list_of(answers.values()), 1.0)
    return Case(ledger, sightings, answers, list_of(answers.values()), log_of(studies))


def with_answer(case: Case, uid: str, **changed: object) -> Case:
    """The case with one study told differently."""
    before = case.answers[uid]
    assert before is not None
    return replace(case, answers={**case.answers, uid: replace(before, **changed)})  # type: ignore[arg-type]  # fields by name


def one(case: Case, state: str) -> str:
    """A study that ends in that state."""
    return next(uid for uid, answer in case.answers.items() if answer and answer.state == state)
