"""The invariants: what was acknowledged and what was seen, against what the service says in the end. Pure.

Each check yields sentences that begin with their invariant. I6, recovery, is timed by the run, which asks ``waiting``
here; all others are in ``CHECKS``.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from chaos.answers import Answers, Entry, ListTold, Row, StudyTold
from chaos.ledger import Acknowledged, Key, Ledger, is_finding, key_of
from chaos.logged import ARRIVED, OUTCOMES, LogTold
from chaos.phantoms import Picture
from chaos.sightings import FLAGGED, NOT_FLAGGED, WITHDRAWN, Sightings
from contracts.reasons import Category, Reason

NOT_ANALYSED, SCORED = "not_analysed", "scored"
ENDED = (FLAGGED, NOT_FLAGGED, NOT_ANALYSED)
RECEIVED, ACTION = "received", "action"  # contracts.worklist.Change

# All pictures but the poisoned ones are good: whoever gives one of these reasons has not got the bytes it was sent.
NOT_DURABLE = frozenset({"payload_missing", "record_unreadable", "record_lost", "pixels_undecodable", "discarded"})


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known when a run has ended. ``log`` None: the log itself was not read."""

    ledger: Ledger
    sightings: Sightings
    answers: Answers
    listed: ListTold
    log: LogTold | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one run: images, but ``silent_normals`` and ``actions_lost``, which are studies and actions."""

    acknowledged: int
    settled: int
    lost: int
    doubled: int
    silent_normals: int
    actions_lost: int


@dataclass(frozen=True, slots=True)
class Study:
    """One study that something was acknowledged of, with its answer."""

    uid: str
    owed: tuple[Acknowledged, ...]
    told: StudyTold

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """What was acknowledged."""
        return tuple(one.picture for one in self.owed)

    def rows(self, picture: Picture) -> list[Row]:
        """The rows of one image: one, if all is well."""
        return [r for r in self.told.rows if (r.sop_instance_uid, r.digest) == key_of(picture)[1:]]

    @property
    def scored(self) -> list[Picture]:
        """What was acknowledged and is scored."""
        return [p for p in self.pictures if any(row.outcome == SCORED for row in self.rows(p))]

    @property
    def changes(self) -> list[str]:
        """The history's changes, in order."""
        return [entry.change for entry in self.told.history]


def violations(case: Case) -> tuple[str, ...]:
    """Every sentence of every check, in the order of the invariants."""
    return tuple(sentence for check in CHECKS for sentence in check(case))


def counts(case: Case) -> Counts:
    """What the run came to."""
    owed = case.ledger.acknowledged
    rows = [(one.picture, _rows(case.answers, one.picture)) for one in owed]
    return Counts(
        acknowledged=len(owed),
        settled=sum(_settled_once(found) for _, found in rows),
        lost=sum(_lost(picture, found) for picture, found in rows),
        doubled=sum(len(found) > 1 or any(row.settlements > 1 for row in found) for _, found in rows),
        silent_normals=sum(any(_why_not_normal(study)) for study in _studies(case)),
        actions_lost=sum(_actions_lost(case).values()),
    )


def waiting(ledger: Ledger, answers: Answers, before_s: float) -> list[Key]:
    """I6: what was acknowledged by then (monotonic) and is not settled in these answers."""
    due = [one.picture for one in ledger.acknowledged if one.at_s <= before_s]
    return [key_of(picture) for picture in due if not any(row.outcome for row in _rows(answers, picture))]


def settled_by(ledger: Ledger, answers: Answers, before_s: float) -> bool:
    """I6: whether everything that was acknowledged by then is settled."""
    return not waiting(ledger, answers, before_s)


def unended(ledger: Ledger, answers: Answers) -> list[str]:
    """Studies that have not come to their end: the run waits for them before it checks."""
    return [uid for uid, owed in ledger.owed().items() if not _ended(ledger, answers.get(uid), owed)]


def _ended(ledger: Ledger, told: StudyTold | None, owed: Iterable[Acknowledged]) -> bool:
    if told is None or told.state not in ENDED:
        return False
    have = {(row.sop_instance_uid, row.digest) for row in told.rows if row.outcome}
    return all(key_of(one.picture)[1:] in have for one in owed) and (told.closed or _stranded(ledger, told))


def _stranded(ledger: Ledger, told: StudyTold) -> bool:
    """It cannot close: it waits for an image that came half-way and that its sender has stopped sending."""
    owed = {key_of(one.picture)[1:] for one in ledger.owed().get(told.study_instance_uid, ())}
    return any(not row.outcome and (row.sop_instance_uid, row.digest) not in owed for row in told.rows)


# I1: every acknowledged image is durable and settled exactly once


def settled_exactly_once(case: Case) -> Iterator[str]:
    """In the answers: one row an image, with an outcome, settled once, and no outcome that says it was not kept."""
    for one in case.ledger.acknowledged:
        found = _rows(case.answers, one.picture)
        if len(found) != 1:
            yield _i1(one.picture, "is not there" if not found else f"has {len(found)} rows")
        for row in found:
            if row.settlements != 1 or not row.outcome:
                yield _i1(one.picture, f"is settled {row.settlements} times, outcome {row.outcome or 'none'}")
            elif _undurable(one.picture, row):
                yield _i1(one.picture, f"was not kept: {row.reason}")


def nothing_unsent(case: Case) -> Iterator[str]:
    """No row for an image that nobody sent."""
    for uid, told in case.answers.items():
        sent = {key_of(picture)[1:] for picture in case.ledger.studies[uid].pictures}
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
        if not told.closed and not _stranded(case.ledger, told):
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
    for study in _studies(case):
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
    for study in _studies(case):
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
    for study in _studies(case):
        seen, withdrawn = case.sightings.study(study.uid), WITHDRAWN in study.changes
        if seen.flagged_s is not None and study.told.state != FLAGGED and not withdrawn:
            yield f"I4 flags stand: study {study.uid} was seen flagged, ends as {study.told.state}, never withdrawn"
        if seen.lowered > study.changes.count(WITHDRAWN):
            yield f"I4 flags stand: study {study.uid} was seen flagged, then not, and never withdrawn"
        if study.told.state == FLAGGED and FLAGGED not in study.changes:
            yield f"I4 flags stand: study {study.uid} is flagged, and its history does not tell when"


def findings_are_flagged(case: Case) -> Iterator[str]:
    """What the truth and the scores both call positive is flagged."""
    for study in _studies(case):
        if is_finding(study.scored) and study.told.state != FLAGGED:
            yield f"I4 flags stand: study {study.uid} has a lesion that was scored, and ends as {study.told.state}"


def audited(case: Case) -> Iterator[str]:
    """Each flag and each withdrawal of the history is in the audit trail."""
    if case.log is None:
        return
    kept = Counter((one.study_instance_uid, one.change) for one in case.log.audit)
    for study in _studies(case):
        for change in (FLAGGED, WITHDRAWN):
            missing = study.changes.count(change) - kept[study.uid, change]
            if missing > 0:
                yield f"I4 flags stand: study {study.uid}: {missing} × {change} is not in the audit trail"


# I5: every acknowledged reader action survives


def actions_survive(case: Case) -> Iterator[str]:
    """As many in the history as were answered 200."""
    for uid, missing in _actions_lost(case).items():
        yield f"I5 actions survive: study {uid} has lost {missing} actions"


def _actions_lost(case: Case) -> dict[str, int]:
    owed = Counter(action.study_instance_uid for action in case.ledger.actions)
    lost = {uid: count - _actions(case.answers.get(uid)) for uid, count in owed.items()}
    return {uid: count for uid, count in lost.items() if count > 0}


def _actions(told: StudyTold | None) -> int:
    entries: tuple[Entry, ...] = told.history if told else ()
    return sum(entry.change == ACTION for entry in entries)


# I7: no study whose analysis failed looks normal


def silently_normal(case: Case) -> Iterator[str]:
    """Not flagged, with a lesion in it, an image that failed or waits, or one that nobody could have read."""
    for study in _studies(case):
        for why in _why_not_normal(study):
            yield f"I7 silently normal: study {study.uid} is not flagged, and {why}"


def never_normal_too_soon(case: Case) -> Iterator[str]:
    """Nor was it called normal at any time while images of it waited."""
    for uid in case.ledger.owed():
        if times := case.sightings.study(uid).hollow:
            yield f"I7 silently normal: study {uid} was seen not flagged {times} times while images of it waited"


def _why_not_normal(study: Study) -> Iterator[str]:
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


CHECKS: tuple[Callable[[Case], Iterator[str]], ...] = (
    settled_exactly_once,
    nothing_unsent,
    logged_exactly_once,
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


def _studies(case: Case) -> Iterator[Study]:
    for uid, owed in case.ledger.owed().items():
        told = case.answers.get(uid)
        if told is not None:
            yield Study(uid, tuple(owed), told)


def _rows(answers: Answers, picture: Picture) -> list[Row]:
    told = answers.get(picture.study_instance_uid)
    rows = told.rows if told else ()
    return [row for row in rows if (row.sop_instance_uid, row.digest) == (picture.sop_instance_uid, picture.digest)]


def _settled_once(found: list[Row]) -> bool:
    return len(found) == 1 and found[0].settlements == 1 and bool(found[0].outcome)


def _lost(picture: Picture, found: list[Row]) -> bool:
    return not any(row.outcome and not _undurable(picture, row) for row in found)


def _undurable(picture: Picture, row: Row) -> bool:
    return picture.readable and row.reason in NOT_DURABLE


def _failed(row: Row) -> bool:
    """Waits, or failed; a reason that is not on the list counts as a failure."""
    if row.outcome is None:
        return True
    known = row.reason in set(Reason)
    return row.outcome == NOT_ANALYSED and (not known or Reason(str(row.reason)).category is Category.FAILED)


def _i1(picture: Picture, what: str) -> str:
    return f"I1 settled once: study {picture.study_instance_uid} image {picture.sop_instance_uid} {what}"
