"""Every metric's name, kind, help, labels and buckets: one closed table. Base units (seconds, bytes) only."""

from dataclasses import dataclass
from enum import StrEnum

from contracts.hooks import Happening


class Kind(StrEnum):
    """Prometheus metric types that we use."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family. A counter's name is given without ``_total``: the client library adds it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_FAST_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_FLAG_S = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0, 900.0)

_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM

STAGE_IN = Metric("triage_stage_started", _C, "Work items that entered a stage.", ("stage",))
STAGE_OUT = Metric("triage_stage_finished", _C, "Work items that left a stage.", ("stage", "outcome"))
STAGE_NOW = Metric("triage_stage_in_progress", _G, "Work items inside a stage now.", ("stage",))
STAGE_SECONDS = Metric("triage_stage_seconds", _H, "Time inside a stage.", ("stage",), _FAST_S)

METRICS: dict[Happening, Metric] = {
    Happening.RECEIVED: Metric("triage_images_received", _C, "Images acknowledged.", ("door", "lane")),
    Happening.DUPLICATE: Metric("triage_images_duplicate", _C, "Images received again, unchanged.", ("room",)),
    Happening.REFUSED: Metric(
        "triage_images_refused", _C, "Objects, requests and connections refused at a door.", ("door", "reason")
    ),
    Happening.EXECUTABLE: Metric(
        "triage_executable_preambles", _C, "DICOM objects whose preamble is that of a program.", ("door", "kind")
    ),
    Happening.LEFTOVER_DELETED: Metric(
        "triage_leftovers_deleted", _C, "Files deleted from the payload store: expired payloads, parts.", ("kind",)
    ),
    Happening.SCORED: Metric("triage_images_scored", _C, "Frames scored.", ("model", "version")),
    Happening.NOT_ANALYSED: Metric("triage_images_not_analysed", _C, "Images without a score.", ("reason",)),
    Happening.DEAD_LETTER: Metric("triage_dead_letters", _C, "Scans put on the dead-letter topic.", ("reason",)),
    Happening.DECODER_REPLACED: Metric(
        "triage_decoders_replaced", _C, "Decoder processes that were replaced: crashed, hung, memory, worn.", ("why",)
    ),
    Happening.INFERENCE_SECONDS: Metric(
        "triage_inference_seconds",
        _H,
        "One inference request, answer included.",
        ("model", "version"),
        _FAST_S,
    ),
    Happening.INFERENCE_RETRY: Metric("triage_inference_retries", _C, "Inference requests repeated.", ("model",)),
    Happening.BREAKER_OPEN: Metric("triage_breaker_open", _G, "1 while the circuit breaker is open.", ("peer",)),
    Happening.IN_FLIGHT_IMAGES: Metric("triage_in_flight_images", _G, "Scans fetched and not yet settled."),
    Happening.IN_FLIGHT_BYTES: Metric("triage_in_flight_bytes", _G, "Bytes of scans fetched and not settled."),
    Happening.LAG_RECORDS: Metric("triage_lag_records", _G, "Records behind the log end.", ("topic", "partition")),
    Happening.LAG_SECONDS: Metric(
        "triage_lag_seconds", _G, "Age of the oldest unsettled record.", ("topic", "partition")
    ),
    Happening.PARTITIONS_ASSIGNED: Metric("triage_partitions_assigned", _G, "Partitions owned now.", ("group",)),
    Happening.RECORDS_LOST: Metric(
        "triage_records_lost", _C, "Records that left a topic before they were read.", ("topic",)
    ),
    Happening.BACKLOG_AGE_SECONDS: Metric(
        "triage_backlog_age_seconds",
        _G,
        "Age of the oldest unscored record of a lane, by the broker's time; retention deletes it in the end.",
        ("lane",),
    ),
    Happening.BACKLOG_IN_DANGER: Metric(
        "triage_backlog_in_danger",
        _G,
        "1 while a lane's oldest unscored record is older than half its retention.",
        ("lane",),
    ),
    Happening.EVENT_UNREADABLE: Metric("triage_events_unreadable", _C, "Study events that could not be read."),
    Happening.STALE_WRITE: Metric("triage_stale_writes", _C, "Writes to Redis refused as older: a fenced zombie."),
    Happening.FLAGGED: Metric("triage_studies_flagged", _C, "Studies flagged.", ("urgency",)),
    Happening.TIME_TO_FLAG_SECONDS: Metric(
        "triage_time_to_flag_seconds",
        _H,
        "From a study's first image to its first flag.",
        ("urgency",),
        _FLAG_S,
    ),
    Happening.STUDY_CLOSED: Metric("triage_studies_closed", _C, "Studies closed.", ("state",)),
    Happening.STUDY_EXPIRED: Metric("triage_studies_expired", _C, "Studies whose deadline passed unsettled."),
    Happening.REBUILDING: Metric("triage_rebuilding", _G, "1 while a partition's view is rebuilt.", ("partition",)),
    Happening.OPEN_STUDIES: Metric("triage_studies_open", _G, "Studies not yet closed.", ("partition",)),
    Happening.IMAGES_WAITING: Metric(
        "triage_images_waiting", _G, "Images that arrived and have no outcome.", ("partition", "lane")
    ),
    Happening.OLDEST_WAITING_SECONDS: Metric(
        "triage_oldest_waiting_seconds", _G, "Age of the oldest image without an outcome.", ("partition", "lane")
    ),
    Happening.PEER_UP: Metric("triage_peer_up", _G, "1 while a peer answers.", ("peer",)),
    Happening.ASSOCIATIONS: Metric("triage_associations", _G, "DICOM associations open now."),
    Happening.LIVE_READERS: Metric("triage_live_readers", _G, "Readers of the live event stream."),
    Happening.COMMITMENT_REQUESTED: Metric(
        "triage_commitment_requests", _C, "Storage commitment requests (N-ACTION) by the answer.", ("answer",)
    ),
    Happening.COMMITMENT_PENDING: Metric("triage_commitment_pending", _G, "Storage commitment reports owed here now."),
    Happening.COMMITMENT_REPORTED: Metric(
        "triage_commitment_reports", _C, "Storage commitment transactions that ended, by outcome.", ("outcome",)
    ),
    Happening.COMMITMENT_UNDELIVERED: Metric(
        "triage_commitment_undelivered", _C, "Storage commitment reports that did not get through, by reason.", ("why",)
    ),
    Happening.FAULT: Metric("triage_faults", _C, "Unexpected errors that a guard caught.", ("where",)),
}
