"""Which changes readers and the audit trail are told of: a table over before and after. Pure."""

from dataclasses import dataclass

from contracts.findings import StudyState
from contracts.worklist import Change
from worker.flagging.assessment import Assessment


@dataclass(frozen=True, slots=True)
class Moment:
    """A study at one offset."""

    word: Assessment
    closed: bool

    @property
    def flagged(self) -> bool:
        """Whether the study stands flagged."""
        return self.word.state is StudyState.FLAGGED

    @property
    def telling(self) -> tuple[object, ...]:
        """What is worth telling when it changes. Volumes and probabilities grow with every slice: they are not."""
        word = self.word
        return (word.state, word.urgency, word.reason, tuple(finding.name for finding in word.findings))


def changes(before: Moment | None, after: Moment) -> list[Change]:
    """In the order in which they are told; empty where nothing worth telling changed."""
    told = [Change.RECEIVED] if before is None else []
    was_flagged, was_closed = (before.flagged, before.closed) if before else (False, False)
    closing = after.closed and not was_closed
    if after.flagged and not was_flagged:
        told.append(Change.FLAGGED)
    elif was_flagged and not after.flagged:
        told.append(Change.WITHDRAWN)
    elif before is not None and not closing and _revised(before, after):
        told.append(Change.REVISED)
    return [*told, Change.CLOSED] if closing else told


def _revised(before: Moment, after: Moment) -> bool:
    reopened = before.closed and not after.closed
    return reopened or before.telling != after.telling
