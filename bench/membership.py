"""How long partitions have no owner when a scoring worker is told to stop: leaving the group, or static membership.

Two workers of the real service on one real broker of Apache Kafka. One gets SIGTERM; the other's partitions are watched
until it has them all; then the first is started again and watched until it has some. The anchor is the same with
``group.instance.id``, whose members send no LeaveGroup: their partitions wait for the session to end.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.figure import Figure
from launch.stack.apache_kafka import ApacheKafka

ROUNDS = 6
PARTITIONS = 12
AIM_S = 2.0  # below that a reader does not notice a rolling restart
PATIENCE_S = 120.0
MEMBER = """
import functools, json, signal, sys, threading, time
from contracts.hooks import Happening, Silent
from contracts.settings import Settings
from launch.wiring import scoring

class Told(Silent):
    def happened(self, happening, value=1.0, traceparent="", **labels):
        if happening is Happening.PARTITIONS_ASSIGNED:
            print(json.dumps([time.time(), int(value)]), flush=True)

given, instance = json.loads(sys.argv[1]), sys.argv[2]
if instance:
    scoring.make_consumer = functools.partial(scoring.make_consumer, group_instance_id=instance)
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
(service,) = scoring.build(Settings.model_validate(given), Told())
service.run(stop)
"""


class _Member:
    """One worker; what it says of its partitions, with the time."""

    def __init__(self, settings: dict[str, object], instance: str) -> None:
        self._command = [sys.executable, "-c", MEMBER, json.dumps(settings), instance]
        self._process: subprocess.Popen[bytes] | None = None
        self._said = b""

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, cwd=Path.cwd())
        self._said = b""

    def owns(self, at_least: int) -> float:
        """Epoch seconds when it said that it owns so many. Raises TimeoutError."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            *lines, self._said = self._said.split(b"\n")
            told = [json.loads(line) for line in lines]
            if told and told[-1][1] >= at_least:
                return float(told[-1][0])
            self._said += self._heard(until_s - time.monotonic())

    def stop(self) -> float:
        """Asks it to, and waits. Returns epoch seconds of asking."""
        asked_s = time.time()
        self._running.send_signal(signal.SIGTERM)
        self._running.wait(PATIENCE_S)
        return asked_s

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("not started")
        return self._process

    def _heard(self, timeout_s: float) -> bytes:
        output = self._running.stdout
        if output is None or not select.select([output], [], [], max(0.0, timeout_s))[0]:
            raise TimeoutError("a worker never had its partitions")
        return os.read(output.fileno(), 4096)


def membership() -> list[Figure]:
    """Seconds without an owner, medians: by leaving the group, beside static membership."""
    with tempfile.TemporaryDirectory() as folder:
        broker = ApacheKafka(Path(folder))
        broker.start()
        try:
            leaving = _rounds(broker.bootstrap, "leaving", _taken_over)
            restarted = _rounds(broker.bootstrap, "restarted", _restarted)
            gone = _rounds(broker.bootstrap, "gone", _taken_over)
        finally:
            broker.close()
    note = f"{PARTITIONS} partitions of two topics, two workers, median of {ROUNDS}; anchor: group.instance.id, {{}}"
    return [
        Figure("seconds without an owner, stopped", leaving, gone, AIM_S, note.format("not started again"), False),
        Figure("seconds without an owner, restarted", leaving, restarted, AIM_S, note.format("started at once"), False),
    ]


def _rounds(bootstrap: str, prefix: str, outage_s: Callable[[_Member, _Member], float]) -> float:
    """The median outage while two members are stopped in turn."""
    kafka = {"bootstrap": bootstrap, "topic_prefix": f"{prefix}.", "partitions": PARTITIONS}
    settings: dict[str, object] = {"kafka": kafka | {"replication": 1, "min_insync": 1}}
    members = [_Member(settings, "" if prefix == "leaving" else f"member-{number}") for number in range(2)]
    try:
        members[0].start()
        members[0].owns(2 * PARTITIONS)
        members[1].start()
        members[1].owns(1)
        return statistics.median(outage_s(members[n % 2], members[1 - n % 2]) for n in range(ROUNDS))
    finally:
        for member in members:
            member.end()


def _taken_over(leaver: _Member, stayer: _Member) -> float:
    """Until the other one has everything; then the first is started again."""
    asked_s = leaver.stop()
    outage_s = stayer.owns(2 * PARTITIONS) - asked_s
    leaver.start()
    leaver.owns(1)
    return outage_s


def _restarted(leaver: _Member, _: _Member) -> float:
    """Until it has its own again."""
    asked_s = leaver.stop()
    leaver.start()
    return leaver.owns(1) - asked_s
