"""The invariants I1 to I5 and I7, each a check of a run that has ended. Pure.

A check yields sentences that begin with its invariant. I6, recovery, is timed by the run (chaos/checks).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from chaos.answers import Entry, Row, StudyTold
from chaos.case import (
    ENDED,
    NOT_ANALYSED,
    SCORED,
    Case,
    Study,
    answered,
    own_fault,
    rows_of,
    stranded,
    undurable,
)
from chaos.ledger import is_finding, key_of
from chaos.logged import ARRIVED, OUTCOMES
from chaos.phantoms import Picture
from chaos.sightings import FLAGGED, NOT_FLAGGED, WITHDRAWN
from contracts.reasons import Category, Reason

RECEIVED, ACTION = "received", "action"  # contracts.worklist.Change

# I1: every acknowledged image is durable and settled exactly once


def settled_exactly_once(case: Case) -> Iterator[str]:
    """In the answers: one row an image, with an outcome, settled once, and no outcome that says it was not kept."""
    for one in case.ledger.acknowledged:
        found = rows_of(case.answers, one.picture)
        if len(found) != 1:
            yield _i1(one.picture, "is not there" if not found else f"has {len(found)} rows")
        for row in found:
            if row.settlements != 1 or not row.outcome:
                yield _i1(one.picture, f"is settled {row.settlements} times, outcome {row.outcome or 'none'}")
            elif undurable(one.picture, row):
                yield _i1(one.picture, f"was not kept: {row.reason}")


def nothing_unsent(case: Case) -> Iterator[str]:
    """No row for an image that nobody sent."""
    for uid, told in case.answers.items():
        sent = {key_of(picture)[1:] for picture in case.ledger.studies[uid].pictures}
        sent |= {(sop, "") for sop, _ in sent}  # scored, and its arrival never came: nobody was told Success
        for row in told.rows if told else ():
            if (row.sop_instance_uid, row.digest) not in sent:
                yield f"I1 settled once: study {uid} has a row for an image that nobody sent, {row.sop_instance_uid}"


def logged_exactly_once(case: Case) -> Iterator[str]:
    """In the log: each image arrived, with one key of each outcome at most, and one at least."""
    if case.log is None:
        return
    known: Counter[tuple[str, str, str]] = Counter()
    doubled: Counter[tuple[str, str, str, str]] = Counter()
    settled: dict[tuple[str, str], set[str]] = {}
    for key in case.log.keys:
        known[key.study_instance_uid, key.sop_instance_uid, key.kind] += 1
        if key.kind in OUTCOMES:
            doubled[key.study_instance_uid, key.sop_instance_uid, key.pixel_digest, key.kind] += 1
            settled.setdefault((key.study_instance_uid, key.sop_instance_uid), set()).add(key.pixel_digest)
    for uid, owed in case.ledger.owed().items():
        for sop, images in Counter(one.picture.sop_instance_uid for one in owed).items():
            if known[uid, sop, ARRIVED] < images:
                yield f"I1 settled once: study {uid} image {sop} has not arrived in the log"
            if len(settled.get((uid, sop), ())) < images:
                yield f"I1 settled once: study {uid} image {sop} has no outcome in the log"
    for (uid, sop, _, kind), times in doubled.items():
        if times > 1 and uid in case.ledger.studies:
            yield f"I1 settled once: study {uid} image {sop} is {kind} under {times} keys in the log"


def buried(case: Case) -> Iterator[str]:
    """In the log: who failed by its own fault has a dead letter, so that a person can look at it."""
    if case.log is None:
        return
    letters = {(one.study_instance_uid, one.sop_instance_uid, one.digest) for one in case.log.letters}
    for one in case.ledger.acknowledged:
        for row in rows_of(case.answers, one.picture):
            if own_fault(row) and key_of(one.picture) not in letters:
                yield _i1(one.picture, f"failed ({row.reason}) and has no dead letter")


def both_told(case: Case) -> Iterator[str]:
    """One UID that came with two pictures: the study asks its reader to review it (design decision 2)."""
    for study in answered(case):
        versions = Counter(picture.sop_instance_uid for picture in study.pictures)
        for sop in (sop for sop, times in versions.items() if times > 1):
            if Reason.SAME_UID_OTHER_PIXELS not in study.told.notes:
                yield f"I1 settled once: study {study.uid} does not say that image {sop} came with other pixels"


# I2: every study ends flagged, not flagged or not analysed, never missing


def ends(case: Case) -> Iterator[str]:
    """It is there, has one of the three states, and is closed."""
    listed = {item.study_instance_uid for item in case.listed.items}
    for uid in case.ledger.owed():
        told = case.answers.get(uid)
        if told is None or uid not in listed:
            yield f"I2 never missing: study {uid} is not there" if told is None else _unlisted(uid)
            continue
        if told.state not in ENDED:
            yield f"I2 ends: study {uid} ends as {told.state}"
        if not told.closed and not stranded(case.ledger, told):
            yield f"I2 ends: study {uid} has not closed"


def _unlisted(uid: str) -> str:
    return f"I2 never missing: study {uid} is not in the list"


def never_missing_meanwhile(case: Case) -> Iterator[str]:
    """No list that said it was complete left out a study that had been seen before."""
    for uid in case.ledger.owed():
        if times := case.sightings.study(uid).vanished:
            yield f"I2 never missing: study {uid} was seen, and then missing from {times} lists whose status was ok"


def not_left_unanalysed(case: Case) -> Iterator[str]:
    """A study with every image scored is not analysed no longer: what came late is revised."""
    for study in answered(case):
        if study.told.state == NOT_ANALYSED and all(row.outcome == SCORED for row in study.told.rows):
            yield f"I2 ends: study {study.uid} is not analysed ({study.told.reason}), yet every image is scored"


# I3: one worklist entry a study and one ``flagged`` event a finding


def one_entry(case: Case) -> Iterator[str]:
    """Once in the list, in the end and at any time."""
    times = Counter(item.study_instance_uid for item in case.listed.items)
    for uid in case.ledger.owed():
        if times[uid] > 1 or case.sightings.study(uid).doubled:
            yield f"I3 one entry: study {uid} is in the list more than once"


def one_history(case: Case) -> Iterator[str]:
    """Received once; nothing told twice; flagged once until it is withdrawn; and never without a lesion."""
    for study in answered(case):
        if study.changes.count(RECEIVED) != 1:
            yield f"I3 one entry: study {study.uid} was received {study.changes.count(RECEIVED)} times"
        for entry, times in Counter(study.told.history).items():
            if times > 1:
                yield f"I3 one event: study {study.uid} tells {entry.change} at offset {entry.offset} {times} times"
        if _flagged_in_turn(study.changes) > 1:
            yield f"I3 one event: study {study.uid} was flagged again without being withdrawn"
        if study.told.state == FLAGGED and not any(p.lesion for p in case.ledger.studies[study.uid].pictures):
            yield f"I3 one event: study {study.uid} is flagged, and there is no lesion in it"


def one_live_event(case: Case) -> Iterator[str]:
    """Those who listen are told once."""
    for uid in case.ledger.owed():
        if (times := case.sightings.study(uid).told_flagged) > 1:
            yield f"I3 one event: study {uid} was told live as flagged {times} times without being withdrawn"


def _flagged_in_turn(changes: Iterable[str]) -> int:
    """The longest run of ``flagged`` without ``withdrawn`` between."""
    longest = now = 0
    for change in changes:
        now = 0 if change == WITHDRAWN else now + (change == FLAGGED)
        longest = max(longest, now)
    return longest


# I4: no flag lost or lowered except by a person or by an audited withdrawal


def flags_stand(case: Case) -> Iterator[str]:
    """Seen flagged, it is flagged in the end, and was all the time, unless its history tells that it was withdrawn."""
    for study in answered(case):
        seen, withdrawn = case.sightings.study(study.uid), WITHDRAWN in study.changes
        if seen.flagged_s is not None and study.told.state != FLAGGED and not withdrawn:
            yield f"I4 flags stand: study {study.uid} was seen flagged, ends as {study.told.state}, never withdrawn"
        if seen.lowered > study.changes.count(WITHDRAWN):
            yield f"I4 flags stand: study {study.uid} was seen flagged, then not, and never withdrawn"
        if study.told.state == FLAGGED and FLAGGED not in study.changes:
            yield f"I4 flags stand: study {study.uid} is flagged, and its history does not tell when"


def findings_are_flagged(case: Case) -> Iterator[str]:
    """What the truth and the scores both call positive is flagged."""
    for study in answered(case):
        if is_finding(study.scored) and study.told.state != FLAGGED:
            yield f"I4 flags stand: study {study.uid} has a lesion that was scored, and ends as {study.told.state}"


def audited(case: Case) -> Iterator[str]:
    """Each flag and each withdrawal of the history is in the audit trail."""
    if case.log is None:
        return
    kept = Counter((one.study_instance_uid, one.change) for one in case.log.audit)
    for study in answered(case):
        for change in (FLAGGED, WITHDRAWN):
            missing = study.changes.count(change) - kept[study.uid, change]
            if missing > 0:
                yield f"I4 flags stand: study {study.uid}: {missing} × {change} is not in the audit trail"


# I5: every acknowledged reader action survives


def actions_survive(case: Case) -> Iterator[str]:
    """As many in the history as were answered 200."""
    for uid, missing in actions_lost(case).items():
        yield f"I5 actions survive: study {uid} has lost {missing} actions"


def actions_lost(case: Case) -> dict[str, int]:
    """Study → how many of its actions are gone."""
    owed = Counter(action.study_instance_uid for action in case.ledger.actions)
    lost = {uid: count - _actions(case.answers.get(uid)) for uid, count in owed.items()}
    return {uid: count for uid, count in lost.items() if count > 0}


def _actions(told: StudyTold | None) -> int:
    entries: tuple[Entry, ...] = told.history if told else ()
    return sum(entry.change == ACTION for entry in entries)


# I7: no study whose analysis failed looks normal


def silently_normal(case: Case) -> Iterator[str]:
    """Not flagged, with a lesion in it, an image that failed or waits, or one that nobody could have read."""
    for study in answered(case):
        for why in why_not_normal(study):
            yield f"I7 silently normal: study {study.uid} is not flagged, and {why}"


def never_normal_too_soon(case: Case) -> Iterator[str]:
    """Nor was it called normal at any time while images of it waited."""
    for uid in case.ledger.owed():
        if times := case.sightings.study(uid).hollow:
            yield f"I7 silently normal: study {uid} was seen not flagged {times} times while images of it waited"


def why_not_normal(study: Study) -> Iterator[str]:
    """What speaks against calling it not flagged, where it is called so."""
    if study.told.state != NOT_FLAGGED:
        return
    if is_finding(study.pictures):
        yield "has a lesion"
    for row in study.told.rows:
        if _failed(row):
            yield f"image {row.sop_instance_uid} {row.outcome or 'waits'} ({row.reason})"
    for picture in study.pictures:
        if not any(row.outcome == SCORED for row in study.rows(picture)):
            yield f"image {picture.sop_instance_uid} is not scored"


def _failed(row: Row) -> bool:
    """Waits, or failed; a reason that is not on the list counts as a failure."""
    if row.outcome is None:
        return True
    known = row.reason in set(Reason)
    return row.outcome == NOT_ANALYSED and (not known or Reason(str(row.reason)).category is Category.FAILED)


def _i1(picture: Picture, what: str) -> str:
    return f"I1 settled once: study {picture.study_instance_uid} image {picture.sop_instance_uid} {what}"


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    settled_exactly_once,
    nothing_unsent,
    logged_exactly_once,
    buried,
    both_told,
    ends,
    never_missing_meanwhile,
    not_left_unanalysed,
    one_entry,
    one_history,
    one_live_event,
    flags_stand,
    findings_are_flagged,
    audited,
    actions_survive,
    silently_normal,
    never_normal_too_soon,
)
