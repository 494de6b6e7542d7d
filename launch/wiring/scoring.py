"""Scoring: settings → reader, workers, inference client, log."""

import functools
import threading
import time

from contracts.hooks import Hooks
from contracts.names import SCORING_GROUP
from contracts.ports import Log, Service
from contracts.settings import Settings
from launch.clients.kafka_call import (
    WATCHDOG_S,
    KafkaLog,
    Watchdog,
    appended_s,
    backlog_of,
    group_of,
    log_start,
    make_consumer,
    topics_of,
)
from worker.scoring.analysis import Analysis
from worker.scoring.backlog_in import Broker
from worker.scoring.custody import Custody
from worker.scoring.decode import Budget
from worker.scoring.decoders_call import Decoders
from worker.scoring.holding import Holding
from worker.scoring.kafka_in import ScanReader
from worker.scoring.kafka_out import Publisher
from worker.scoring.payload_in import ClaimedPayloads
from worker.scoring.service import Ports, ScoringService
from worker.scoring.settling import Settling, Tools
from worker.scoring.triton_call import TritonCall

# What the client fetches ahead lies beside the window, for each partition. A larger record comes all the same, alone.
FETCH_BYTES = 2 * 1024**2


def build(settings: Settings, hooks: Hooks) -> list[Service]:
    """One scoring service. Peers that are away do not stop the start."""
    log = KafkaLog(settings.kafka, hooks)
    publisher = Publisher(log, topics_of(settings.kafka))
    custody = Custody(settings.scoring)
    triton = TritonCall(settings.triton, hooks)
    decoding = threading.Semaphore(settings.scoring.threads)
    decoders = Decoders(settings.scoring, hooks)
    tools = Tools(
        custody=custody,
        publishing=publisher,
        inference=triton,
        analysis=Analysis(_budget(settings), decoding, hooks, decoders, masks=settings.scoring.brain_mask),
        payload_of=ClaimedPayloads(settings.payload),
        request_timeout_s=settings.triton.request_timeout_s,
        holding=Holding(settings.scoring.in_flight_bytes),
    )
    ports = Ports(
        custody=custody,
        reader=_reader(settings, hooks, log, publisher, custody, triton),
        server=triton,
        log=log,
        settling=Settling(tools, hooks, time.monotonic, time.time),
        decoding=decoding,
        decoders=decoders,
        workers=settings.scoring.in_flight_images,
    )
    return [ScoringService(ports)]


def _budget(settings: Settings) -> Budget:
    scoring = settings.scoring
    return Budget(scoring.decode_budget_bytes, scoring.frame_budget_bytes, settings.limits)


def _reader(
    settings: Settings, hooks: Hooks, log: Log, publisher: Publisher, custody: Custody, triton: TritonCall
) -> ScanReader:
    group, topics = group_of(settings.kafka, SCORING_GROUP), topics_of(settings.kafka)
    consumer = functools.partial(
        make_consumer,
        settings.kafka,
        group=group,
        topics=[topics.stat, topics.routine],
        client_id="triage-scoring",
        max_partition_fetch_bytes=FETCH_BYTES,
    )
    broker = Broker(
        consumer=consumer,
        log_start=log_start,
        backlog_of=backlog_of,
        watchdog=lambda: Watchdog(WATCHDOG_S, time.monotonic),
        appended_s=functools.partial(appended_s, settings.kafka),
        tell_lost=publisher.lost,
        retention_s=settings.kafka.scan_retention_s,
    )
    return ScanReader(
        broker,
        log,
        topics,
        group,
        custody,
        hooks,
        drain_s=settings.scoring.drain_s,
        # Something must be in hand to probe the server with, or it would be held off for ever.
        hold_off=lambda: triton.holding_off and custody.in_flight[0] > 0,
    )
