"""What a run came to: every violation of the invariants, the counts, and what recovery waits for. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass

from chaos.answers import Answers, Row, StudyTold
from chaos.case import ENDED, Case, answered, rows_of, stranded, undurable
from chaos.invariants import CHECKS, actions_lost, why_not_normal
from chaos.ledger import Acknowledged, Key, Ledger, key_of
from chaos.phantoms import Picture

__all__ = ["Case", "Counts", "counts", "settled_by", "unended", "violations", "waiting"]


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one run: images, but ``silent_normals`` and ``actions_lost``, which are studies and actions."""

    acknowledged: int
    settled: int
    lost: int
    doubled: int
    silent_normals: int
    actions_lost: int


def violations(case: Case) -> tuple[str, ...]:
    """Every sentence of every check, in the order of the invariants."""
    return tuple(sentence for check in CHECKS for sentence in check(case))


def counts(case: Case) -> Counts:
    """What the run came to."""
    owed = case.ledger.acknowledged
    rows = [(one.picture, rows_of(case.answers, one.picture)) for one in owed]
    return Counts(
        acknowledged=len(owed),
        settled=sum(_settled_once(found) for _, found in rows),
        lost=sum(_lost(picture, found) for picture, found in rows),
        doubled=sum(len(found) > 1 or any(row.settlements > 1 for row in found) for _, found in rows),
        silent_normals=sum(any(why_not_normal(study)) for study in answered(case)),
        actions_lost=sum(actions_lost(case).values()),
    )


def waiting(ledger: Ledger, answers: Answers, before_s: float) -> list[Key]:
    """I6: what was acknowledged by then (monotonic) and is not settled in these answers."""
    due = [one.picture for one in ledger.acknowledged if one.at_s <= before_s]
    return [key_of(picture) for picture in due if not any(row.outcome for row in rows_of(answers, picture))]


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
    return all(key_of(one.picture)[1:] in have for one in owed) and (told.closed or stranded(ledger, told))


def _settled_once(found: list[Row]) -> bool:
    return len(found) == 1 and found[0].settlements == 1 and bool(found[0].outcome)


def _lost(picture: Picture, found: list[Row]) -> bool:
    return not any(row.outcome and not undurable(picture, row) for row in found)
