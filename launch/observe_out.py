"""Hooks → Prometheus metrics and JSON log lines. The table of contracts/metrics.py decides the names, nothing else.

Implementations of hooks never raise: a wrong label is a fault that is counted (``triage_faults{where="hooks"}``).
"""

import logging
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from contracts.errors import NotAnalysable, PeerError, Rejected
from contracts.hooks import Happening, Stage
from contracts.metrics import METRICS, STAGE_IN, STAGE_NOW, STAGE_OUT, STAGE_SECONDS, Kind, Metric
from launch.log_out import JsonLog

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# How a stage can end, as told in triage_stage_finished_total{outcome}: the first class that fits.
_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (Rejected, "rejected"),
    (NotAnalysable, "not_analysable"),
    (PeerError, "peer_error"),
    (Exception, "error"),
    (BaseException, "cancelled"),
)

# What people should read without asking for DEBUG. Gauges are told when they change.
_LEVELS: dict[Happening, int] = {
    Happening.FLAGGED: logging.INFO,
    Happening.STUDY_CLOSED: logging.INFO,
    Happening.PARTITIONS_ASSIGNED: logging.INFO,
    Happening.REBUILDING: logging.INFO,
    Happening.PEER_UP: logging.INFO,
    Happening.LEFTOVER_DELETED: logging.INFO,
    Happening.COMMITMENT_REPORTED: logging.INFO,
    Happening.COMMITMENT_UNDELIVERED: logging.WARNING,
    Happening.BREAKER_OPEN: logging.WARNING,
    Happening.STUDY_EXPIRED: logging.WARNING,
    Happening.STALE_WRITE: logging.WARNING,
    Happening.DEAD_LETTER: logging.WARNING,
    Happening.DECODER_REPLACED: logging.WARNING,
    Happening.BACKLOG_IN_DANGER: logging.WARNING,
    Happening.EVENT_UNREADABLE: logging.ERROR,
    Happening.RECORDS_LOST: logging.ERROR,
    Happening.FAULT: logging.ERROR,
}


class Observer:
    """The Hooks of one process: its own metric registry, its log, and the last word on every peer."""

    def __init__(self, log: JsonLog) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they are gauges named _created, which promtool and people stumble over
        self.log = log
        self._registry = CollectorRegistry()
        self._stages = {m: self._collector(m) for m in (STAGE_IN, STAGE_OUT, STAGE_NOW, STAGE_SECONDS)}
        self._happenings = {happening: self._collector(metric) for happening, metric in METRICS.items()}
        self._last = _Last()
        for collect in (ProcessCollector, PlatformCollector, GCCollector):
            collect(registry=self._registry)

    def _collector(self, metric: Metric) -> Any:
        make: dict[Kind, Any] = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge, Kind.HISTOGRAM: Histogram}
        buckets = {"buckets": metric.buckets} if metric.kind is Kind.HISTOGRAM else {}
        return make[metric.kind](metric.name, metric.help, metric.labels, registry=self._registry, **buckets)

    @contextmanager
    def stage(self, stage: Stage, traceparent: str = "") -> Iterator[None]:
        """Counts in, out by outcome, in progress and seconds; an exception passes through."""
        began = time.perf_counter()
        self._stages[STAGE_IN].labels(stage).inc()
        now = self._stages[STAGE_NOW].labels(stage)
        now.inc()
        outcome = "ok"
        try:
            yield
        except BaseException as problem:
            outcome = next(name for kind, name in _OUTCOMES if isinstance(problem, kind))
            raise
        finally:
            now.dec()
            self._left(stage, outcome, time.perf_counter() - began, traceparent)

    def _left(self, stage: Stage, outcome: str, seconds: float, traceparent: str) -> None:
        self._stages[STAGE_OUT].labels(stage, outcome).inc()
        self._stages[STAGE_SECONDS].labels(stage).observe(seconds)
        fields = {"stage": stage, "outcome": outcome, "seconds": round(seconds, 6)}
        self.log.write(logging.DEBUG, "stage", fields, traceparent)

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Counts, sets or observes; a gauge that gets NaN is taken away (a partition that is no longer ours)."""
        try:
            self._happened(happening, value, traceparent, labels)
        except Exception as problem:  # noqa: BLE001 — hooks never raise: whatever it was is counted and told
            self._happenings[Happening.FAULT].labels("hooks").inc()
            self.log.failure("hooks", problem, happening=happening)

    def _happened(self, happening: Happening, value: float, traceparent: str, labels: Mapping[str, str]) -> None:
        metric = METRICS[happening]
        told = tuple(str(labels[name]) for name in metric.labels)
        if set(labels) != set(metric.labels):
            raise ValueError(f"{metric.name} takes the labels {metric.labels}")
        _apply(metric, self._happenings[happening], value, told)
        changed = self._last.changed((happening, told), value)
        if _worth_a_line(metric.kind, value, changed=changed):
            fields: dict[str, object] = {**labels, "value": value}
            self.log.write(_level(happening, value), happening, fields, traceparent)

    def peers(self) -> dict[str, str]:
        """What the rooms last told of their peers: "up" or "away"."""
        return {labels[0]: "up" if value else "away" for labels, value in self._last.of(Happening.PEER_UP)}

    def exposition(self) -> bytes:
        """Every metric in Prometheus's text format, as CONTENT_TYPE says."""
        return generate_latest(self._registry)


def _apply(metric: Metric, collector: Any, value: float, labels: tuple[str, ...]) -> None:
    if math.isnan(value) and metric.kind is Kind.GAUGE and labels:
        collector.remove(*labels)
        return
    series = collector.labels(*labels) if labels else collector
    if metric.kind is Kind.COUNTER:
        series.inc(value)
    elif metric.kind is Kind.GAUGE:
        series.set(value)
    else:
        series.observe(value)


def _worth_a_line(kind: Kind, value: float, *, changed: bool) -> bool:
    """A gauge when it changes, not when it ends; a counter when it counts; every observation."""
    return {Kind.GAUGE: changed and not math.isnan(value), Kind.COUNTER: value > 0, Kind.HISTOGRAM: True}[kind]


def _level(happening: Happening, value: float) -> int:
    if happening is Happening.PEER_UP and not value:
        return logging.WARNING
    return _LEVELS.get(happening, logging.DEBUG)


class _Last:
    """The last value of every series, so that a gauge is told only when it changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[Happening, tuple[str, ...]], float] = {}

    def changed(self, series: tuple[Happening, tuple[str, ...]], value: float) -> bool:
        with self._lock:
            before = self._values.get(series)
            self._values[series] = value
        return before != value

    def of(self, happening: Happening) -> list[tuple[tuple[str, ...], float]]:
        with self._lock:
            return [(labels, value) for (told, labels), value in self._values.items() if told is happening]
