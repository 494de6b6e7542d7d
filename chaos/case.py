"""What is known when a run has ended, and the words that the checks share. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from chaos.answers import Answers, ListTold, Row, StudyTold
from chaos.ledger import Acknowledged, Ledger, key_of
from chaos.logged import LogTold
from chaos.phantoms import Picture
from chaos.sightings import FLAGGED, NOT_FLAGGED, Sightings
from contracts.reasons import Category, Reason

NOT_ANALYSED, SCORED = "not_analysed", "scored"
ENDED = (FLAGGED, NOT_FLAGGED, NOT_ANALYSED)

# All pictures but the poisoned ones are good: whoever gives one of these reasons has not got the bytes it was sent.
NOT_DURABLE = frozenset({"payload_missing", "record_unreadable", "record_lost", "pixels_undecodable", "discarded"})


# An image without a score fails by its own fault for these (worker/scoring/analysis.at_fault), but for those that
# flagging's timers and people give.
OWN_FAULT = frozenset(reason for reason in Reason if reason.category is Category.FAILED) - {
    *(Reason.RECORD_LOST, Reason.DELAYED, Reason.DISCARDED),
}


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that is known when a run has ended. ``log`` None: the log itself was not read."""

    ledger: Ledger
    sightings: Sightings
    answers: Answers
    listed: ListTold
    log: LogTold | None = None


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


def answered(case: Case) -> Iterator[Study]:
    """Every study that something was acknowledged of and that there is an answer for."""
    for uid, owed in case.ledger.owed().items():
        told = case.answers.get(uid)
        if told is not None:
            yield Study(uid, tuple(owed), told)


def rows_of(answers: Answers, picture: Picture) -> list[Row]:
    """The rows of one image: one, if all is well."""
    told = answers.get(picture.study_instance_uid)
    rows = told.rows if told else ()
    return [row for row in rows if (row.sop_instance_uid, row.digest) == (picture.sop_instance_uid, picture.digest)]


def undurable(picture: Picture, row: Row) -> bool:
    """Whether the row says that the service has not got the image as it was sent."""
    return picture.readable and row.reason in NOT_DURABLE


def own_fault(row: Row) -> bool:
    """Whether the image itself failed us: scoring owes it a dead letter."""
    return row.outcome == NOT_ANALYSED and row.reason in OWN_FAULT


def stranded(ledger: Ledger, told: StudyTold) -> bool:
    """It cannot close: it waits for an image that came half-way and that its sender has stopped sending."""
    owed = {key_of(one.picture)[1:] for one in ledger.owed().get(told.study_instance_uid, ())}
    return any(not row.outcome and (row.sop_instance_uid, row.digest) not in owed for row in told.rows)
