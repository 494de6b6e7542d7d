"""The whole room on real brokers and a real Triton: settled once, committed after, whatever goes away in between."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

from contracts.events import NotAnalysed, Scored
from contracts.names import Lane, partition_of
from contracts.reasons import Reason
from contracts.settings import PayloadSettings, Settings
from launch.clients.kafka_call import make_consumer
from launch.stack.triton_server import TritonServer
from tests.test_worker.test_scoring.conftest import WAIT_S
from worker.scoring.custody import Custody

pytestmark = pytest.mark.stack

PARTITIONS = 3
ERROR, SLOW = 103, 104
WORKER = """
import sys, threading
from contracts.hooks import Silent
from contracts.settings import PayloadSettings, Settings
from launch.wiring.scoring import build
(service,) = build(Settings.model_validate_json(sys.stdin.read()), Silent())
service.run(threading.Event())
"""


def with_fault(payload: bytes, fault: int) -> bytes:
    """The image with the sample that asks the test's model for a fault."""
    data = pydicom.dcmread(BytesIO(payload))
    pixels = data.pixel_array.copy()
    pixels[0, 0] = fault
    data.PixelData = pixels.tobytes()
    out = BytesIO()
    data.save_as(out)
    return out.getvalue()


def until(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Waits for it; fails where it does not come."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


def all_committed(bench: Any, counts: dict[tuple[str, int], int]) -> bool:
    """Whether the group's commits stand at the end of every partition."""
    committed = bench.committed()
    return all(committed.get(partition) == count for partition, count in counts.items())


def test_every_image_of_both_lanes_is_settled_once_and_committed(
    broker: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
    sample: Callable[[str], bytes],
) -> None:
    """Scored, out of scope and excluded images each give one event; then their offsets are committed.

    Once, not at least once: neither a lost session nor a late acknowledgement, which make an image's event come again
    under its key, is an excuse here, so a busy machine gets the time in which neither comes.
    """
    bench = bench_of(broker, faulty_triton.grpc, kafka={"session_timeout_s": 60.0, "ack_timeout_s": 120.0})
    payloads = {"head": small_head, "mr": sample("MR_small.dcm"), "plan": sample("rtplan.dcm")}
    sent: dict[tuple[str, int], int] = {}
    for study in range(4):
        for number, (kind, payload) in enumerate(payloads.items()):
            lane = Lane.STAT if study == 0 else Lane.ROUTINE
            bench.send(
                bench.headers(payload, f"1.2.{study}", f"1.2.{study}.{number}.{kind == 'head':d}", lane), payload
            )
            place = (bench.topics.lane(lane), partition_of(f"1.2.{study}", PARTITIONS))
            sent[place] = sent.get(place, 0) + 1
    with running(bench.settings, told):
        events = bench.settled(12)
        until(lambda: all_committed(bench, sent), "everything committed")
        until(lambda: told.last.get("lag_records") == 0.0, "no lag is told")
    assert {len(found) for found in events.values()} == {1}
    scored = [found[0] for found in events.values() if isinstance(found[0], Scored)]
    assert len(scored) == 4
    assert {event.model_version for event in scored} == {"1"}
    assert scored[0].position_mm == pytest.approx(30.11, abs=0.01)
    reasons = {found[0].reason for found in events.values() if isinstance(found[0], NotAnalysed)}
    assert reasons == {Reason.MODALITY_OUT_OF_SCOPE, Reason.NOT_AN_IMAGE}
    assert told.counts["scored"] == 4
    assert told.counts["dead_letter"] == 0


def test_a_resend_is_settled_without_a_new_event(
    tansu: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """The same SOP instance with the same pixels is scored once, however often it is sent."""
    bench = bench_of(tansu, faulty_triton.grpc)
    headers = bench.headers(small_head, "1.2", "1.2.3")
    with running(bench.settings, told):
        for _ in range(3):
            bench.send(headers, small_head)
        place = (bench.topics.routine, partition_of("1.2", PARTITIONS))
        until(lambda: all_committed(bench, {place: 3}), "all three committed")
        bench.send(bench.headers(small_head, "1.2", "1.2.4"), small_head)
        events = bench.settled(2)
    assert [len(events[sop]) for sop in ("1.2.3", "1.2.4")] == [1, 1]
    assert told.counts["scored"] == 2
    assert told.counts["duplicate"] == 2


def test_commit_waits_for_the_oldest_unsettled_image(
    tansu: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """Later images of a partition are scored while an earlier one is slow, and none of them is committed."""
    bench = bench_of(tansu, faulty_triton.grpc)
    slow = with_fault(small_head, SLOW)
    place = (bench.topics.routine, partition_of("1.2", PARTITIONS))
    with running(bench.settings, told):
        bench.send(bench.headers(slow, "1.2", "1.2.0"), slow)
        for number in range(1, 6):
            bench.send(bench.headers(small_head, "1.2", f"1.2.{number}"), small_head)
        first = bench.settled(5)
        assert "1.2.0" not in first
        assert bench.committed().get(place, 0) == 0
        until(lambda: all_committed(bench, {place: 6}), "the slow one and all behind it")


def test_an_image_at_fault_is_a_dead_letter_and_holds_up_no_other(
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
) -> None:
    """A truncated image, one that breaks the model, and a record without headers; the images behind them are scored."""
    bench = bench_of(tansu, faulty_triton.grpc)
    breaking, cut = with_fault(small_head, ERROR), small_head[:-50_000]
    with running(bench.settings, told):
        bench.send(bench.headers(cut, "1.2", "1.2.0"), cut)
        bench.put(bench.topics.routine, b"1.2", b"junk", [("schema", b"99"), ("sop_instance_uid", b"1.2.9")])
        bench.put(bench.topics.routine, b"not a uid", b"junk", [])
        bench.send(bench.headers(breaking, "1.2", "1.2.1"), breaking)
        bench.send(bench.headers(small_head, "1.2", "1.2.2"), small_head)
        events = bench.settled(4)
        letters = bench.records(bench.topics.dead, lambda found: len(found) >= 4)
    assert {sop: getattr(found[0], "reason", None) for sop, found in events.items()} == {
        "1.2.0": Reason.PIXELS_UNDECODABLE,
        "1.2.9": Reason.RECORD_UNREADABLE,
        "1.2.1": Reason.MODEL_REFUSED,
        "1.2.2": None,
    }
    told_letters = [dict(letter.headers) for letter in letters]
    assert {letter["reason"] for letter in told_letters} == {
        b"pixels_undecodable",
        b"record_unreadable",
        b"model_refused",
    }
    assert all(letter["place"].startswith(bench.topics.routine.encode()) for letter in told_letters)
    assert sum(letter.value == breaking for letter in letters) == 1


def test_triton_away_settles_nothing_and_everything_once_it_is_back(
    tansu: str,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    """A peer that is away is no image's fault: no event, no dead letter, no commit; then all of them."""
    server = TritonServer(tmp_path, Path(__file__).parent / "faulty_repository")
    server.start()
    try:
        bench = bench_of(tansu, server.grpc, in_flight_images=6)
        server.kill()
        with running(bench.settings, told) as service:
            for number in range(10):
                bench.send(bench.headers(small_head, "1.2", f"1.2.{number}"), small_head)
            until(lambda: told.counts["breaker_open:triton"] > 0, "the breaker opens")
            until(lambda: service.peers()["triton"] == "away", "told to be away")
            assert service.ready(), "able to answer its callers, whatever its peers do"
            time.sleep(1.0)
            assert told.counts["not_analysed"] == told.counts["scored"] == told.counts["dead_letter"] == 0
            assert bench.committed() == {}
            server.restart()
            events = bench.settled(10)
            place = (bench.topics.routine, partition_of("1.2", PARTITIONS))
            until(lambda: all_committed(bench, {place: 10}), "all committed")
        assert all(isinstance(found[0], Scored) for found in events.values())
    finally:
        server.close()


def start_worker(settings: Settings) -> "subprocess.Popen[bytes]":
    """A scoring worker in a process of its own."""
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdin=subprocess.PIPE, cwd=Path.cwd())
    assert worker.stdin is not None
    dumped = settings.model_dump(mode="json") | {"redis": {}, "worklist": {}}
    dumped["kafka"].pop("sasl_password")
    worker.stdin.write(json.dumps(dumped).encode())
    worker.stdin.close()
    return worker


@pytest.mark.kafka
def test_killed_in_the_middle_another_worker_settles_each_image_once(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, small_head: bytes
) -> None:
    """After kill -9 what was not committed is scored again, to the same event keys; nothing is missing.

    Half of the images come while it works, the last of them right before its death: it cannot have ended by then.
    """
    bench = bench_of(kafka_broker, faulty_triton.grpc, cooperative=True)

    def send(numbers: range) -> None:
        for number in numbers:
            bench.send(bench.headers(small_head, f"1.2.{number % 5}", f"1.2.3.{number}"), small_head)

    send(range(30))
    first = start_worker(bench.settings)
    try:
        bench.settled(5)
        send(range(30, 60))
        first.send_signal(signal.SIGKILL)
        first.wait(WAIT_S)
        done = sum(bench.committed().values())
        second = start_worker(bench.settings)
        try:
            records = bench.records(bench.topics.events, lambda found: len({record.key for record in found}) >= 60)
            ends = {(bench.topics.routine, partition_of(f"1.2.{n}", PARTITIONS)): 0 for n in range(5)}
            for number in range(60):
                ends[bench.topics.routine, partition_of(f"1.2.{number % 5}", PARTITIONS)] += 1
            until(lambda: all_committed(bench, ends), "all committed")
        finally:
            second.kill()
            second.wait(WAIT_S)
    finally:
        first.kill()
    assert done < 60, "killed in the middle"
    assert len({record.key for record in records}) == 60, "one key for each image, however often it was scored"


@pytest.mark.kafka
def test_a_second_worker_takes_over_partitions_and_gives_them_back(
    kafka_broker: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """Through two rebalances every image is settled, and both workers drain cleanly."""
    bench = bench_of(kafka_broker, faulty_triton.grpc, cooperative=True)
    number = 0

    def send(count: int) -> None:
        nonlocal number
        for _ in range(count):
            lane = Lane.STAT if number % 2 else Lane.ROUTINE  # assignors may give a worker partitions of one lane only
            bench.send(bench.headers(small_head, f"1.2.{number % 6}", f"1.2.3.{number}", lane), small_head)
            number += 1

    with running(bench.settings, told):
        send(12)
        other = type(told)()
        with running(bench.settings, other):
            until(lambda: other.last.get("partitions_assigned", 0.0) > 0, "the second worker owns partitions")
            send(24)
            bench.settled(36)
        send(12)
        events = bench.settled(48)
    assert all(isinstance(found[0], Scored) for found in events.values())
    assert told.counts["scored"] + other.counts["scored"] >= 48
    assert other.counts["scored"] > 0


@pytest.mark.kafka
def test_a_second_worker_leaves_untouched_partitions_alone(
    kafka_broker: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the first worker keeps is neither dropped nor assigned anew, so what is in work there goes on."""
    moves: list[tuple[str, Custody, frozenset[Any]]] = []
    for name in ("assign", "drop"):
        inner = getattr(Custody, name)

        def moved(self: Custody, partitions: Any, name: str = name, inner: Any = inner) -> None:
            some = frozenset(partitions)
            moves.append((name, self, some))
            inner(self, some)

        monkeypatch.setattr(Custody, name, moved)
    bench = bench_of(kafka_broker, faulty_triton.grpc, cooperative=True)
    with running(bench.settings, told):
        until(lambda: told.last.get("partitions_assigned", 0.0) == 2 * PARTITIONS, "the first worker owns all")
        first, before = moves[0][1], len(moves)
        with running(bench.settings, type(told)()):
            until(lambda: told.last["partitions_assigned"] < 2 * PARTITIONS, "the first worker gave some away")
            until(lambda: any(one is not first and some for _, one, some in moves), "the second has them")
            kept, during = first.partitions, moves[before:]
    assert kept
    assert not any(some & kept for _, one, some in during if one is first)


def test_draining_settles_what_is_in_work_and_leaves_the_rest(
    tansu: str, faulty_triton: Any, bench_of: Any, running: Any, told: Any, small_head: bytes
) -> None:
    """After a stop in the middle the next worker goes on at the commit: no image twice, none missing."""
    bench = bench_of(tansu, faulty_triton.grpc, in_flight_images=4)
    slow = with_fault(small_head, SLOW)
    with running(bench.settings, told):
        bench.send(bench.headers(slow, "1.2", "1.2.0"), slow)
        until(lambda: told.last.get("in_flight_images", 0.0) > 0, "the slow one is in work")
    assert told.counts["scored"] == 1, "what was in work is settled before the service ends"
    assert bench.committed() == {(bench.topics.routine, partition_of("1.2", PARTITIONS)): 1}
    bench.send(bench.headers(small_head, "1.2", "1.2.1"), small_head)
    again = type(told)()
    with running(bench.settings, again):
        bench.settled(2)
    assert again.counts["scored"] == 1


def test_payloads_of_the_claim_check_are_fetched_and_their_absence_told(
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
    tmp_path: Path,
) -> None:
    """There: scored. Gone, exchanged or not of our store: payload missing. Store not mounted: waited for."""
    bench = bench_of(tansu, faulty_triton.grpc)
    store, unmounted = tmp_path / "store", tmp_path / "unmounted"
    payload = PayloadSettings(url=f"file://{store}")
    there, gone, other = (f"ab/{number:064x}" for number in range(3))
    (unmounted / "ab").mkdir(parents=True)
    (unmounted / there).write_bytes(small_head)
    (unmounted / other).write_bytes(small_head[:-2] + b"xx")

    def claim(sop: str, where: str) -> None:
        bench.send(bench.headers(small_head, "1.2", sop, claim=where), b"")

    with running(bench.settings.model_copy(update={"payload": payload}), told):
        claim("1.2.0", f"{payload.url}/{there}")
        claim("1.2.1", f"file://{unmounted}/{there}")  # it is there, and it is not ours
        claim("1.2.2", f"{payload.url}/ab/../../unmounted/{there}")
        claim("1.2.3", "http://127.0.0.1:9/ab/cd")
        events = bench.settled(3)
        assert "1.2.0" not in events
        unmounted.rename(store)
        claim("1.2.4", f"{payload.url}/{gone}")
        claim("1.2.5", f"{payload.url}/{other}")
        events = bench.settled(6)
    outcomes = {sop: getattr(found[0], "reason", None) for sop, found in events.items()}
    assert outcomes == {"1.2.0": None, **dict.fromkeys((f"1.2.{n}" for n in range(1, 6)), Reason.PAYLOAD_MISSING)}


def test_frames_of_an_enhanced_ct_are_scored_one_by_one(
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    sample: Callable[[str], bytes],
) -> None:
    """A multi-frame object gives one event for each frame, each with its own position."""
    data = pydicom.dcmread(BytesIO(sample("eCT_Supplemental.dcm")))
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    shared = data.SharedFunctionalGroupsSequence[0]
    shared.CTImageFrameTypeSequence[0].FrameType = data.ImageType
    shared.PixelValueTransformationSequence[0].RescaleType = "HU"
    out = BytesIO()
    data.save_as(out)
    payload = out.getvalue()
    bench = bench_of(tansu, faulty_triton.grpc)
    with running(bench.settings, told):
        bench.send(bench.headers(payload, "1.2", "1.2.0", frames=2), payload)
        events = bench.events(2)
    scored = [event for event in events if isinstance(event, Scored)]
    assert [(event.frame, event.frames) for event in scored] == [(0, 2), (1, 2)]
    assert [event.position_mm for event in scored] == pytest.approx([159.0, 149.0])


def test_dead_letters_are_listed_replayed_and_discarded(
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
) -> None:
    """As a person does it, with ``triage dead``: the list shows what is open, audit tells who."""
    bench = bench_of(tansu, faulty_triton.grpc)
    breaking = with_fault(small_head, ERROR)

    def dead(*arguments: str) -> Any:
        environment = os.environ | {
            "TRIAGE_KAFKA__BOOTSTRAP": tansu,
            "TRIAGE_KAFKA__TOPIC_PREFIX": bench.settings.kafka.topic_prefix,
            "TRIAGE_KAFKA__PARTITIONS": str(PARTITIONS),
            "TRIAGE_KAFKA__REPLICATION": "1",
            "TRIAGE_KAFKA__MIN_INSYNC": "1",
        }
        command = [sys.executable, "-m", "launch.cli", "dead", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, check=False, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    assert dead("list") == {"letters": [], "more": 0}
    with running(bench.settings, told):
        for number in range(2):
            bench.send(bench.headers(breaking, "1.2", f"1.2.{number}"), breaking)
        bench.records(bench.topics.dead, lambda found: len(found) >= 2)
        letters = dead("list")["letters"]
        assert [letter["reason"] for letter in letters] == ["model_refused"] * 2
        assert {letter["sop_instance_uid"] for letter in letters} == {"1.2.0", "1.2.1"}
        by_sop = {letter["sop_instance_uid"]: letter["place"] for letter in letters}
        replayed = dead("replay", by_sop["1.2.0"])["replayed"]
        assert replayed[0]["place"] == by_sop["1.2.0"]
        bench.records(
            bench.topics.dead, lambda found: sum(b"model_refused" in dict(r.headers).values() for r in found) >= 3
        )
        dead("discard", by_sop["1.2.1"], "--reason", "a test image")
        letters = dead("list")["letters"]
    assert [letter["place"] for letter in letters] == [replayed[0]["new_place"]], "replayed, and dead again"
    audits = [json.loads(r.value) for r in bench.records(bench.topics.audit, lambda found: len(found) >= 2)]
    assert [audit["action"] for audit in audits] == ["dead_letter_replayed", "dead_letter_discarded"]
    assert audits[1]["why"] == "a test image"
    assert all(audit["by"] for audit in audits)
    events = bench.settled(2)
    last = events["1.2.1"][-1]
    assert isinstance(last, NotAnalysed)
    assert last.reason is Reason.DISCARDED


def test_a_consumer_that_forgets_a_partition_is_replaced(
    tansu: str,
    faulty_triton: Any,
    bench_of: Any,
    running: Any,
    told: Any,
    small_head: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A consumer that owns partitions and delivers nothing, though the broker has records, gives way to a new one."""
    made: list[Any] = []

    def forgetful(*arguments: Any, **given: Any) -> Any:
        consumer = make_consumer(*arguments, **given)
        made.append(consumer)
        if len(made) == 1:
            deliver = consumer.poll
            monkeypatch.setattr(consumer, "poll", lambda **how: deliver(**how) and {})
        return consumer

    monkeypatch.setattr("launch.wiring.scoring.make_consumer", forgetful)
    monkeypatch.setattr("launch.wiring.scoring.WATCHDOG_S", 2.0)
    bench = bench_of(tansu, faulty_triton.grpc)
    with running(bench.settings, told):
        for number in range(3):
            bench.send(bench.headers(small_head, "1.2", f"1.2.{number}"), small_head)
        events = bench.settled(3)
    assert len(made) == 1 + told.counts["fault:scoring_consumer"]
    assert len(made) >= 2
    assert all(isinstance(found[0], Scored) for found in events.values())
