"""Hooks around the stages: rooms tell what they do; whoever starts them decides what becomes a metric or a log line.

Labels and fields never carry patient data.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from enum import StrEnum
from typing import Protocol


class Stage(StrEnum):
    """A step of the way of one image, in order. Each is counted in, out and in progress, and timed."""

    RECEIVE = "receive"
    INTAKE = "intake"
    STORE_PAYLOAD = "store_payload"
    PUBLISH = "publish"
    FETCH_PAYLOAD = "fetch_payload"
    DECODE = "decode"
    ROUTE = "route"
    INFER = "infer"
    SETTLE = "settle"
    FOLD = "fold"
    APPLY = "apply"
    SERVE = "serve"


class Happening(StrEnum):
    """Something worth counting or telling. Labels and meaning of the value: contracts/metrics.py."""

    RECEIVED = "received"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    EXECUTABLE = "executable"
    LEFTOVER_DELETED = "leftover_deleted"
    SCORED = "scored"
    NOT_ANALYSED = "not_analysed"
    DEAD_LETTER = "dead_letter"
    DECODER_REPLACED = "decoder_replaced"
    INFERENCE_SECONDS = "inference_seconds"
    INFERENCE_RETRY = "inference_retry"
    BREAKER_OPEN = "breaker_open"
    IN_FLIGHT_IMAGES = "in_flight_images"
    IN_FLIGHT_BYTES = "in_flight_bytes"
    LAG_RECORDS = "lag_records"
    LAG_SECONDS = "lag_seconds"
    PARTITIONS_ASSIGNED = "partitions_assigned"
    RECORDS_LOST = "records_lost"
    BACKLOG_AGE_SECONDS = "backlog_age_seconds"
    BACKLOG_IN_DANGER = "backlog_in_danger"
    EVENT_UNREADABLE = "event_unreadable"
    STALE_WRITE = "stale_write"
    FLAGGED = "flagged"
    TIME_TO_FLAG_SECONDS = "time_to_flag_seconds"
    STUDY_CLOSED = "study_closed"
    STUDY_EXPIRED = "study_expired"
    REBUILDING = "rebuilding"
    OPEN_STUDIES = "open_studies"
    IMAGES_WAITING = "images_waiting"
    OLDEST_WAITING_SECONDS = "oldest_waiting_seconds"
    PEER_UP = "peer_up"
    ASSOCIATIONS = "associations"
    LIVE_READERS = "live_readers"
    COMMITMENT_REQUESTED = "commitment_requested"
    COMMITMENT_PENDING = "commitment_pending"
    COMMITMENT_REPORTED = "commitment_reported"
    COMMITMENT_UNDELIVERED = "commitment_undelivered"
    FAULT = "fault"


class Hooks(Protocol):
    """What a room calls. Implementations never raise."""

    def stage(self, stage: Stage, traceparent: str = "") -> AbstractContextManager[None]:
        """Wraps one stage for one image; an exception passes through and is counted."""

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Counts, sets or observes ``value`` as the happening's metric says; NaN ends a labelled gauge's series."""


class Silent:
    """Hooks that tell nobody: for tests and for one-off commands."""

    @contextmanager
    def stage(self, stage: Stage, traceparent: str = "") -> Iterator[None]:
        """Does the work, tells nobody."""
        del stage, traceparent
        yield

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Tells nobody."""
        del happening, value, traceparent, labels
