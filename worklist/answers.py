"""What the API answers. Every answer carries how far it can be trusted, and the notice."""

from pydantic import BaseModel, ConfigDict, Field

from contracts.findings import Frozen, StudyState, Urgency
from contracts.worklist import NOTICE, Backlog, QueueStatus, StudyDetail, WorklistItem
from worklist.cursor import Cursor


class Answer(Frozen):
    """What every answer says."""

    status: QueueStatus = Field(
        description="`ok`: complete and current. `rebuilding`: studies may still be missing. "
        "`degraded`: a part of the service is away; what is shown may be old."
    )
    detail: str = Field("", description="why the status is not ok, in a sentence; or what went wrong")
    notice: str = NOTICE


class WorklistAnswer(Answer):
    """A page of the worklist, in reading order."""

    items: tuple[WorklistItem, ...] = Field(description="studies in reading order; all times are epoch seconds (UTC)")
    next: str | None = Field(
        None,
        description="give it back as `cursor` for the following page; null: the list ends here. It is a place in the "
        "order, not a number: studies that move meanwhile do not shift the next page, and one that moves forward past "
        "the place is seen only by reading from the front again",
    )
    total: int = Field(description="studies in the whole queue, whatever the filters")
    backlog: Backlog | None = Field(
        None,
        description="how far analysis is behind: images that wait for an outcome, and the age of the oldest (seconds); "
        "`complete` false: not every part of the queue tells; null: none does, nobody knows. `behind_s`: results lie "
        "unread, and what is shown was known so many seconds ago; over `worklist.stale_s` the answer is `degraded`",
    )
    as_of: float = Field(description="epoch seconds at which this list was read; older than now while degraded")
    age_s: float = Field(0.0, description="how old the list is: 0 when read from the queue's store just now")


class StudyAnswer(StudyDetail):
    """One study with its images and history."""

    status: QueueStatus
    detail: str = ""
    backlog: Backlog | None = Field(None, description="of the whole queue, as in the worklist")


class Problem(Answer):
    """No answer, and why."""


class Reset(Frozen):
    """Data of the live event `reset`: events may have been missed, read the worklist again."""

    status: QueueStatus
    detail: str = ""
    notice: str = NOTICE


class Filtered(BaseModel):
    """What the filters look at: a tenth of the work of reading a whole item, on a queue of thousands."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: StudyState
    urgency: Urgency


class Query(Frozen):
    """What a caller asks of the worklist."""

    limit: int
    after: Cursor | None = None
    states: frozenset[StudyState] = frozenset()
    urgencies: frozenset[Urgency] = frozenset()

    @property
    def filters(self) -> bool:
        """Whether some studies may be left out."""
        return bool(self.states or self.urgencies)

    def wants(self, item: Filtered) -> bool:
        """Whether the item passes the filters."""
        return (not self.states or item.state in self.states) and (not self.urgencies or item.urgency in self.urgencies)
