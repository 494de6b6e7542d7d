"""What flagging writes into Redis and the worklist serves: items, images, history, live changes."""

from enum import StrEnum

from pydantic import Field

from contracts.findings import Finding, Frozen, ImageOutcome, Patient, ReadingState, StudyState, Urgency
from contracts.names import Lane
from contracts.reasons import Reason

NOTICE = "Triage only, not for diagnosis. The default model is trained on synthetic data."


class Change(StrEnum):
    """What a live event tells. ``action`` is a person's; the others are the service's."""

    RECEIVED = "received"
    FLAGGED = "flagged"
    REVISED = "revised"
    WITHDRAWN = "withdrawn"
    CLOSED = "closed"
    ACTION = "action"


class QueueStatus(StrEnum):
    """How far the answer can be trusted: complete, being rebuilt from Kafka, or a peer is away."""

    OK = "ok"
    REBUILDING = "rebuilding"
    DEGRADED = "degraded"


class WorklistItem(Frozen):
    """One study of the worklist. Times are epoch seconds (UTC)."""

    position: int = 0  # 1 is read first; filled in when the list is read
    study_instance_uid: str
    accession_number: str = ""
    patient: Patient = Patient()
    study_description: str = ""
    modality: str = ""
    source: str = ""
    lane: Lane = Lane.ROUTINE
    state: StudyState
    provisional: bool
    reason: Reason | None = None
    notes: tuple[Reason, ...] = ()  # what a reader should know beside the state, e.g. same UID, other pixels
    reading_state: ReadingState = ReadingState.UNCLAIMED
    urgency: Urgency
    findings: tuple[Finding, ...] = ()
    images_received: int
    images_settled: int
    arrived_at: float
    due_at: float
    rank: float
    flagged_at: float | None = None
    closed: bool = False
    models: tuple[str, ...] = ()
    notice: str = NOTICE


class ImageItem(Frozen):
    """One SOP instance of a study; a multi-frame instance is one row, settled when all frames are."""

    sop_instance_uid: str
    series_instance_uid: str = ""
    digest: str
    frames: int = 1
    outcome: ImageOutcome | None = None
    reason: Reason | None = None
    settlements: int = 0  # how often it went from waiting to settled in the store: counted there, never assumed
    probability: float | None = None  # the highest of its frames, label "any"


class StoredImage(Frozen):
    """One image in the ``images:<uid>`` hash: the row readers see, and what the fold needs beside it."""

    item: ImageItem
    pixel_digest: str
    arrived_at: float | None = None  # None: its score came, its arrival has not been seen
    copies: dict[Lane, float] = Field(default_factory=dict)  # lane → append time (epoch seconds) of its newest arrival


class LaneBacklog(Frozen):
    """Images of one lane that arrived and wait for an outcome; the oldest's age when this was told."""

    images: int = 0
    oldest_s: float | None = None


class Backlog(Frozen):
    """How far analysis is behind. ``complete``: every partition's owner tells; else there may be more.

    ``behind_s``: age of the last event that was folded in, where later ones lie unread on the log, so that images may
    have arrived of which nothing is told yet; 0 where flagging stands at the log's end.
    """

    images: int = 0
    oldest_s: float | None = None
    lanes: dict[Lane, LaneBacklog] = Field(default_factory=dict)
    complete: bool = True
    behind_s: float = 0.0


class PartitionStatus(StrEnum):
    """Field ``status`` of the ``partition:<n>`` hash."""

    READY = "ready"
    REBUILDING = "rebuilding"


class HistoryEntry(Frozen):
    """One change of a study's state, in the order of the log."""

    at: float
    offset: int
    change: Change
    state: StudyState
    provisional: bool
    reason: Reason | None = None
    urgency: Urgency
    findings: tuple[str, ...] = ()
    models: tuple[str, ...] = ()


class StudyDetail(WorklistItem):
    """An item with its images and its history."""

    images: tuple[ImageItem, ...] = ()
    history: tuple[HistoryEntry, ...] = ()
