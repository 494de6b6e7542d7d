"""The producer: settings → log, doors and their one intake."""

from collections.abc import Callable
from functools import partial

from contracts.errors import SettingsError
from contracts.hooks import Hooks
from contracts.ports import Service
from contracts.settings import Settings
from launch.clients.kafka_call import KafkaLog, ensure_topics, scans_kept_s, topics_of
from launch.wiring import commitment
from producer.broker_call import BrokerWatch
from producer.caps import Caps
from producer.dicom_in import DicomDoor
from producer.folder_in import FolderDoor
from producer.kafka_out import KafkaPublisher
from producer.lanes import Lanes
from producer.leftovers_out import Leftovers
from producer.memory import Acknowledged, Budget
from producer.payload_out import PayloadStore
from producer.reception import Limits, Reception
from producer.service import Door, ProducerService, Telling
from producer.stamp_call import monotonic_s
from producer.stow_in import StowDoor

ENVELOPE_BYTES = 64 * 1024  # key and headers of a record, with room to spare
DRAIN_EXTRA_S = 7.0  # beyond the longest wait for an acknowledgement: the doors' goodbye, and what is told at the end


def build(settings: Settings, hooks: Hooks) -> list[Service]:
    """One service with all doors. Raises SettingsError."""
    limits = limits_of(settings)
    lanes = Lanes(settings.producer.lane_rules)
    memory = Acknowledged()
    log = KafkaLog(settings.kafka, hooks)
    parts = commitment.build(settings, log, hooks)
    forget = partial(_forget, memory, parts.forget) if settings.kafka.memory_only else _keep
    publisher = KafkaPublisher(log, topics_of(settings.kafka), settings.kafka.ack_timeout_s, forget, parts.durable)
    store = PayloadStore(settings.payload.url, settings.payload.min_free_bytes) if settings.payload.url else None
    reception = Reception(lanes, limits, publisher, store, memory, hooks, monotonic_s)
    watch = BrokerWatch(lambda: ensure_topics(settings.kafka, hooks), log, hooks, forget)
    drain_s = settings.kafka.ack_timeout_s + DRAIN_EXTRA_S
    others: list[Telling] = [*parts.doors, *([store] if store else [])]
    return [ProducerService(_doors(settings, reception, hooks, parts), watch, log, drain_s, others)]


def limits_of(settings: Settings) -> Limits:
    """Without a payload store nothing larger than a record can be taken. Raises SettingsError."""
    inline = settings.payload.inline_limit_bytes
    if inline + ENVELOPE_BYTES > settings.kafka.max_record_bytes:
        raise SettingsError(
            f"payload.inline_limit_bytes ({inline}) must stay {ENVELOPE_BYTES} bytes below kafka.max_record_bytes "
            f"({settings.kafka.max_record_bytes})."
        )
    largest = settings.payload.max_bytes if settings.payload.url else inline
    memory, share = settings.limits.memory_bytes, settings.limits.memory_share
    if largest > memory * share:
        raise SettingsError(
            f"limits.memory_share of limits.memory_bytes ({share} of {memory}) must hold one object of the largest "
            f"size that is taken ({largest}: payload.max_bytes, or payload.inline_limit_bytes without a payload store)."
        )
    return Limits(inline, largest, Caps.of(settings.limits), Budget(memory, share))


def _doors(settings: Settings, reception: Reception, hooks: Hooks, parts: commitment.Parts) -> list[Door]:
    budget = reception.limits.budget
    doors: list[Door] = [
        *parts.doors,
        DicomDoor(settings.producer, reception, budget, hooks, parts.offers, limits=settings.limits),
        StowDoor(settings.producer, reception, budget, hooks, settings.limits),
    ]
    if settings.payload.url:
        kept_s = partial(scans_kept_s, settings.kafka)
        doors.append(Leftovers(settings.payload.url, kept_s, settings.payload.margin_s, hooks))
    if settings.producer.folder:
        doors.append(FolderDoor(settings.producer, reception, budget, hooks))
    return doors


def _forget(memory: Acknowledged, forget: Callable[[], None]) -> None:
    """A broker that keeps nothing was lost, and with it all that it acknowledged."""
    memory.forget()
    forget()


def _keep() -> None:
    """A broker that keeps what it acknowledged: nothing to forget."""
