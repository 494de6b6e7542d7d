"""A stop at any moment: what is in flight is settled within the time to drain, or handed back; no image is blamed."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from contracts.events import NotAnalysed, Scored
from contracts.names import partition_of
from contracts.reasons import Reason
from launch.wiring.scoring import build
from worker.scoring.decoders_call import Decoders

pytestmark = pytest.mark.stack

PARTITIONS = 3
DRAIN_S = 4.0
GRACE_S = 15.0  # beyond it: final commit, leaving the group, closing the log; generous, for a busy machine
LONG_DRAIN_S = 120.0  # well above both together: who waits for it is seen
SLOW = 104
FAULTY = (sys.executable, str(Path(__file__).with_name("faulty_decoder.py")))


def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Waits for it; fails where it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class Worker:
    """The service in a thread, to be stopped at a moment of the test's choosing."""

    def __init__(self, settings: Any, hooks: Any) -> None:
        (service,) = build(settings, hooks)
        self.service: Any = service
        self._stop = threading.Event()
        self._thread = threading.Thread(target=service.run, args=(self._stop,), daemon=True)
        self._thread.start()

    def drained(self) -> bool:
        """Asks it to stop; whether it ends within its time."""
        self._stop.set()
        self._thread.join(DRAIN_S + GRACE_S)
        return not self._thread.is_alive()


def with_word(payload: bytes, word: bytes) -> bytes:
    """A compressed image whose codestream asks the faulty decoder for something."""
    data = pydicom.dcmread(BytesIO(payload))
    data.compress(JPEG2000Lossless)
    data.PixelData = encapsulate([word + b"!"])
    data["PixelData"].is_undefined_length = True
    out = BytesIO()
    data.save_as(out)
    return out.getvalue()


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """A server that hangs: it holds its connections and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def faulty_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's decoders do on demand what hostile bytes do."""
    monkeypatch.setattr("launch.wiring.scoring.Decoders", functools.partial(Decoders, command=FAULTY))


def scored_by_another(bench: Any, running: Any, told: Any, images: int) -> dict[str, Any]:
    """A worker that takes over settles what is left; the events of every image."""
    with running(bench.settings, type(told)()):
        found: dict[str, Any] = bench.settled(images)
    return found


@pytest.mark.parametrize("settled_first", [0, 1, 7])
def test_stopped_while_it_fetches_and_scores(
    tansu: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes, settled_first: int
) -> None:
    """In the middle of a flow: every image is settled, by this worker or the next, none is lost."""
    bench = bench_of(tansu, faulty_triton.grpc, drain_s=DRAIN_S, in_flight_images=4)
    for number in range(12):
        bench.send(bench.headers(small_head, f"1.2.{number % 3}", f"1.2.9.{number}"), small_head)
    worker = Worker(bench.settings, told)
    until(lambda: told.counts["scored"] >= settled_first, "so many are settled")
    assert worker.drained()
    events = scored_by_another(bench, running, told, 12)
    assert all(isinstance(event, Scored) for found in events.values() for event in found)
    assert {len({event.key for event in found}) for found in events.values()} == {1}


def test_stopped_while_a_decoder_hangs(  # noqa: PLR0913, PLR0917 (fixtures)
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
    faulty_decoders: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The service ends though the library does not; the image is handed back, not blamed."""
    del faulty_decoders
    bench = bench_of(tansu, faulty_triton.grpc, drain_s=0.5, decode_timeout_s=60.0)
    hanging = with_word(small_head, b"hang")
    bench.send(bench.headers(hanging, "1.2", "1.2.0"), hanging)
    worker = Worker(bench.settings, told)
    until(lambda: worker.service._ports.custody.in_work > 0, "the image is in work")
    time.sleep(1.0)
    assert worker.drained()
    assert told.counts["not_analysed"] == told.counts["dead_letter"] == 0
    assert not any(bench.committed().values())
    monkeypatch.setattr("launch.wiring.scoring.Decoders", Decoders)
    (events,) = scored_by_another(bench, running, told, 1).values()
    assert [event.reason for event in events] == [Reason.PIXELS_UNDECODABLE]


def test_a_poison_image_is_a_dead_letter_and_the_images_around_it_are_scored(
    tansu: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes, faulty_decoders: None
) -> None:
    """Frames that crash, hang and eat memory cost their own image; compressed and plain images beside them go on."""
    del faulty_decoders
    bench = bench_of(tansu, faulty_triton.grpc, decode_timeout_s=3.0)
    data = pydicom.dcmread(BytesIO(small_head))
    data.compress(JPEG2000Lossless)
    out = BytesIO()
    data.save_as(out)
    payloads = {word: with_word(small_head, word.encode()) for word in ("crash", "hang", "eat")}
    payloads |= {"compressed": out.getvalue(), "plain": small_head}
    with running(bench.settings, told):
        for number, payload in enumerate(payloads.values()):
            bench.send(bench.headers(payload, "1.2", f"1.2.{number}"), payload)
        events = bench.settled(len(payloads))
        letters = bench.records(bench.topics.dead, lambda found: len(found) >= 3)
    outcomes = [getattr(events[f"1.2.{number}"][0], "reason", None) for number in range(len(payloads))]
    undecodable, over = Reason.PIXELS_UNDECODABLE, Reason.PIXELS_OVER_BUDGET
    assert dict(zip(payloads, outcomes, strict=True)) == {
        "crash": undecodable,
        "hang": undecodable,
        "eat": over,
        "compressed": None,
        "plain": None,
    }
    details = {dict(letter.headers)["detail"] for letter in letters}
    assert {b"decoder crashed", b"decoder hung"} <= details


def test_stopped_while_the_inference_server_is_dead_or_hangs(
    tansu: str, bench_of: Any, faulty_triton: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """Its retries end at once, long before the time to drain is over: what waits for a peer is handed back.

    Nothing was committed, nothing is a dead letter; on return everything is scored.
    """
    bench = bench_of(tansu, faulty_triton.grpc, drain_s=LONG_DRAIN_S)
    with paused(faulty_triton.pid):
        for number in range(5):
            bench.send(bench.headers(small_head, "1.2", f"1.2.{number}"), small_head)
        worker = Worker(bench.settings, told)
        until(lambda: told.counts["breaker_open:triton"] > 0, "the breaker opens")
        assert worker.drained()
    assert told.counts["not_analysed"] == told.counts["dead_letter"] == told.counts["scored"] == 0
    assert not any(bench.committed().values())
    events = scored_by_another(bench, running, told, 5)
    assert all(isinstance(found[0], Scored) for found in events.values())


def test_stopped_while_the_broker_hangs(
    tansu: str, tansu_server: Any, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """Commit, farewell to the group and the log's last words are given up in time; what is uncommitted comes again."""
    bench = bench_of(tansu, faulty_triton.grpc, drain_s=DRAIN_S)
    worker = Worker(bench.settings, told)
    bench.send(bench.headers(small_head, "1.2", "1.2.0"), small_head)
    bench.settled(1)
    with paused(tansu_server.pid):
        time.sleep(1.0)
        assert worker.drained()
    bench.send(bench.headers(small_head, "1.2", "1.2.1"), small_head)
    assert set(scored_by_another(bench, running, told, 2)) == {"1.2.0", "1.2.1"}


def test_stopped_before_there_is_a_broker(bench_of: Any, told: Any, tansu: str, free_port: Callable[[], int]) -> None:
    """Before the first assignment there is nothing to hand back."""
    bench = bench_of(tansu, f"127.0.0.1:{free_port()}", drain_s=DRAIN_S)
    kafka = bench.settings.kafka.model_copy(update={"bootstrap": f"127.0.0.1:{free_port()}"})
    worker = Worker(bench.settings.model_copy(update={"kafka": kafka}), told)
    until(lambda: told.last.get("peer_up:kafka") == 0.0, "the broker is known to be away")
    assert worker.drained()


def test_a_group_of_processes_that_is_told_to_stop_finishes_what_it_decodes(
    tansu: str, faulty_triton: Any, bench_of: Any, small_head: bytes, tmp_path: Path
) -> None:
    """SIGTERM goes to all processes of a terminal or a unit: decoders finish, the worker ends with status 0."""
    bench = bench_of(tansu, faulty_triton.grpc, drain_s=DRAIN_S)
    data = pydicom.dcmread(BytesIO(small_head))
    data.compress(JPEG2000Lossless)
    out = BytesIO()
    data.save_as(out)
    with started(bench.settings, tmp_path) as worker:
        for number in range(8):
            bench.send(bench.headers(out.getvalue(), "1.2", f"1.2.{number}"), out.getvalue())
        bench.settled(1)
        os.killpg(worker.pid, signal.SIGTERM)
        assert worker.wait(DRAIN_S + GRACE_S + 30.0) == 0
        events = bench.settled(1)
        done = sum(bench.committed().values())
    assert done >= 1
    assert not [event for found in events.values() for event in found if isinstance(event, NotAnalysed)]
    assert bench.committed() == {(bench.topics.routine, partition_of("1.2", PARTITIONS)): done}


@contextmanager
def started(settings: Any, folder: Path) -> Iterator[Any]:
    """``triage worker --role scoring`` in a process group of its own."""
    kafka, triton = settings.kafka, settings.triton
    environment = os.environ | {
        "TRIAGE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "TRIAGE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "TRIAGE_KAFKA__PARTITIONS": str(PARTITIONS),
        "TRIAGE_KAFKA__REPLICATION": "1",
        "TRIAGE_KAFKA__MIN_INSYNC": "1",
        "TRIAGE_KAFKA__COOPERATIVE": "false",
        "TRIAGE_TRITON__URL": triton.url,
        "TRIAGE_SCORING__DRAIN_S": str(settings.scoring.drain_s),
        "TRIAGE_SCORING__BRAIN_MASK": str(settings.scoring.brain_mask),
        "TRIAGE_PROBES__WORKER_PORT": "0",
    }
    command = [sys.executable, "-m", "launch.cli", "worker", "--role", "scoring"]
    with (folder / "log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, stderr=log, stdout=log, start_new_session=True)
        try:
            yield worker
        finally:
            worker.kill()
            worker.wait(10)
