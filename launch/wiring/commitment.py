"""Storage commitment: settings → its topic, its index and its reports, for the producer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contracts.errors import PeerAway, SettingsError
from contracts.hooks import Hooks
from contracts.names import COMMITMENT_GROUP
from contracts.ports import Log
from contracts.scans import Place
from contracts.settings import ProducerSettings, Settings
from launch.clients.kafka_call import Stuck, backlog_of, group_of, log_ends, make_consumer, mapped, topics_of
from producer.commitment_desk import Desk
from producer.commitment_in import Append, CommitmentRequests
from producer.commitment_index_in import Broker, Index
from producer.commitment_log_in import CommitmentLog
from producer.commitment_out import Association, Caller
from producer.commitment_reports import Reports, Rules
from producer.commitment_service import Commitment
from producer.commitment_table_call import Table
from producer.intake import Accepted
from producer.memory import Budget
from producer.stamp_call import monotonic_s, now_s

SETTLE_S = 0.5  # a requestor that hangs up after its request does so within that time: it is called, not raced


@dataclass(frozen=True, slots=True)
class Parts:
    """What the producer needs: offers for the DICOM door, doors beside it, and who hears of Success and of a loss."""

    offers: tuple[CommitmentRequests, ...] = ()
    doors: tuple[Commitment, ...] = ()
    durable: Callable[[Accepted, Place], None] = lambda _accepted, _place: None
    forget: Callable[[], None] = lambda: None


def build(settings: Settings, log: Log, hooks: Hooks) -> Parts:
    """The parts of storage commitment; none where it is switched off. Raises SettingsError."""
    doors, topic = settings.producer, topics_of(settings.kafka).commitments
    if not doors.commitment:
        return Parts()
    desk = Desk(monotonic_s, SETTLE_S, Budget(doors.commitment_pending_bytes, doors.commitment_pending_share))
    append = Append(log, topic, desk, settings.kafka.ack_timeout_s)
    table = _table(doors.commitment_index)
    index = Index(_broker(settings), table, hooks)
    group = group_of(settings.kafka, COMMITMENT_GROUP)
    member = partial(make_consumer, settings.kafka, group=group, topics=[topic], client_id="triage-commitment")
    reader = CommitmentLog(topic, member, log_ends, Stuck(backlog_of), mapped, desk, hooks)
    reports = Reports(desk, index, Caller(doors.ae_title), append, _rules(doors), hooks, now_s)
    offer = CommitmentRequests(doors, desk, append, Association, hooks)
    door = Commitment([reader.run, index.run], reports, table.close)
    return Parts((offer,), (door,), lambda accepted, place: index.acknowledged(accepted.headers, place), index.forget)


def _rules(doors: ProducerSettings) -> Rules:
    peers = {title.strip(): address for title, address in doors.commitment_peers.items()}
    return Rules(peers, doors.commitment_wait_s, doors.commitment_retry_s)


def _table(folder: str) -> Table:
    try:
        return Table(folder)
    except PeerAway as problem:
        raise SettingsError(f"producer.commitment_index: no file can be made there ({problem.detail}).") from None


def _broker(settings: Settings) -> Broker:
    kafka = settings.kafka
    return Broker(
        consumer=partial(make_consumer, kafka, group=None, topics=topics_of(kafka).all, client_id="triage-index"),
        log_ends=log_ends,
        mapped=mapped,
        topics=topics_of(kafka),
        scan_retention_s=kafka.scan_retention_s,
        keeps=not kafka.memory_only,
    )
