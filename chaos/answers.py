"""What the public API answers of a study and of the list, as far as the checks look at it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OK = "ok"  # contracts.worklist.QueueStatus

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One image of a study: contracts.worklist.ImageItem."""

    sop_instance_uid: str
    digest: str
    outcome: str | None
    reason: str | None
    settlements: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a study: contracts.worklist.HistoryEntry."""

    offset: int
    change: str
    state: str


@dataclass(frozen=True, slots=True)
class StudyTold:
    """What ``/v1/studies/{uid}`` said."""

    study_instance_uid: str
    state: str
    reason: str | None
    closed: bool
    rows: tuple[Row, ...]
    history: tuple[Entry, ...]
    notes: tuple[str, ...] = ()  # what a reader should know beside the state

    @classmethod
    def of(cls, told: Json) -> "StudyTold":
        """From the answer's JSON. An answer without one of these fields is a KeyError: the API has changed."""
        return cls(
            study_instance_uid=told["study_instance_uid"],
            state=told["state"],
            reason=told["reason"],
            closed=told["closed"],
            rows=tuple(_row(row) for row in told["images"]),
            history=tuple(Entry(entry["offset"], entry["change"], entry["state"]) for entry in told["history"]),
            notes=tuple(told["notes"]),
        )


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the list."""

    study_instance_uid: str
    position: int
    state: str
    closed: bool
    waiting: int  # images that were received and are not settled


@dataclass(frozen=True, slots=True)
class ListTold:
    """The list, all pages. ``status``: the worst of them. ``pages``: more than one were read at different moments."""

    status: str
    pages: int
    items: tuple[Listed, ...]

    @classmethod
    def of(cls, pages: Sequence[Json]) -> "ListTold":
        """From the pages' JSON, in order."""
        bad = [page["status"] for page in pages if page["status"] != OK]
        items = (item for page in pages for item in page["items"])
        return cls(bad[0] if bad else OK, len(pages), tuple(map(_listed, items)))

    @property
    def ok(self) -> bool:
        """Whether it claims to be complete and current."""
        return self.status == OK


Answers = Mapping[str, StudyTold | None]  # by StudyInstanceUID; None: there is no such study


def _row(row: Json) -> Row:
    return Row(row["sop_instance_uid"], row["digest"], row["outcome"], row["reason"], row["settlements"])


def _listed(item: Json) -> Listed:
    return Listed(
        study_instance_uid=item["study_instance_uid"],
        position=item["position"],
        state=item["state"],
        closed=item["closed"],
        waiting=item["images_received"] - item["images_settled"],
    )
