"""The whole way, started as a user would and looked at through the public interfaces only.

Twice: on the embedded broker and on Apache Kafka.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from launch.phantom import phantom_study
from launch.phantom_in import shipped_heads
from tests.test_way import senders
from tests.test_way.stack import Stack, running_stack, settled_once, wait_for

QUIET_S = 3  # long enough for a busy machine between two slices, short enough for tests


@dataclass(frozen=True)
class Sent:
    """A phantom study on disk."""

    uid: str
    truth: str
    files: list[Path] = field(repr=False)
    sops: set[str] = field(repr=False)
    names: set[str] = field(repr=False)


@pytest.fixture(scope="module", params=["tansu", pytest.param("kafka", marks=pytest.mark.kafka)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for this module and each broker."""
    if request.param == "kafka":
        senders.need("java")
        senders.need("mvn")
    folder = tmp_path_factory.mktemp(f"stack-{request.param}")
    (folder / "watched").mkdir()
    settings = ("--set", f"flagging.quiet_s={QUIET_S}", "--set", f"producer.folder={folder / 'watched'}")
    with running_stack(folder, "--broker", request.param, *settings) as running:
        yield running


def phantom(folder: Path, seed: int, truth: str) -> Sent:
    """One phantom study of that truth, written as Part 10 files."""
    heads = [head for head in shipped_heads() if head.truth == truth]
    study = phantom_study(heads[seed % len(heads)], f"way-{time.time_ns()}-{seed}", datetime(2026, 11, 22, tzinfo=UTC))
    files = []
    for number, data_set in enumerate(study.images):
        files.append(folder / f"{truth}-{seed}-{number:03d}.dcm")
        data_set.save_as(files[-1], enforce_file_format=True)
    first = study.images[0]
    names = {str(first.PatientName), str(first.PatientID), str(first.AccessionNumber)}
    return Sent(study.study_instance_uid, truth, files, {str(d.SOPInstanceUID) for d in study.images}, names)


def ended(stack: Stack, sent: Sent) -> dict[str, Any]:
    """The study once it has closed with every image settled, each exactly once."""
    study = wait_for(f"{sent.truth} study closed", lambda: stack.closed(sent.uid, len(sent.sops)))
    settled_once(study, sent.sops)
    return study


@pytest.mark.stack
def test_storescu_sends_a_bleed_and_it_is_flagged_and_first(stack: Stack, tmp_path: Path) -> None:
    """A clean head first, then a bleeding head: the bleed is flagged and stands before the clean one."""
    clean, bleed = phantom(tmp_path, 100, "clean"), phantom(tmp_path, 102, "lesion")
    for sent in (clean, bleed):
        assert senders.accepted(senders.storescu(stack.dicom, sent.files)) == len(sent.files)
    study = ended(stack, bleed)
    assert study["state"] == "flagged"
    assert study["findings"]
    assert not study["provisional"]
    assert ended(stack, clean)["state"] == "not_flagged"
    order = [item["study_instance_uid"] for item in stack.worklist()["items"]]
    assert order.index(bleed.uid) < order.index(clean.uid)


@pytest.mark.stack
def test_a_bleed_is_flagged_while_its_slices_still_arrive(stack: Stack, tmp_path: Path) -> None:
    """The live stream tells `flagged`, provisional, before the last image was sent."""
    bleed = phantom(tmp_path, 103, "lesion")
    told: list[dict[str, Any]] = []
    listener = threading.Thread(target=_listen, args=(stack, bleed.uid, told), daemon=True)
    listener.start()
    time.sleep(1)
    assert senders.accepted(senders.storescu(stack.dicom, bleed.files[:-1])) == len(bleed.files) - 1
    first = wait_for("a provisional flag", lambda: next((t for t in told if t["event"] == "flagged"), None))
    assert first["data"]["provisional"]
    assert first["data"]["notice"]
    assert senders.accepted(senders.storescu(stack.dicom, bleed.files[-1:])) == 1
    assert ended(stack, bleed)["state"] == "flagged"
    wait_for("the closing event", lambda: [t for t in told if t["event"] == "closed"])
    assert [t["event"] for t in told].count("flagged") == 1


def _listen(stack: Stack, uid: str, told: list[dict[str, Any]]) -> None:
    event = ""
    with httpx.stream("GET", stack.addresses["worklist"].rstrip("/") + "/v1/events", timeout=300) as answer:
        for line in answer.iter_lines():
            if line.startswith("event:"):
                event = line.partition(":")[2].strip()
            elif line.startswith("data:") and uid in line:
                told.append({"event": event, "data": json.loads(line.partition(":")[2])})


@pytest.mark.stack
def test_orthanc_sends_a_study(stack: Stack, tmp_path: Path) -> None:
    """A PACS that is not ours stores a study to us over DICOM."""
    sent = phantom(tmp_path, 104, "lesion")
    with senders.running_orthanc(tmp_path / "orthanc", stack.dicom) as orthanc:
        job = orthanc.send(sent.files)
    assert job["FailedInstancesCount"] == 0
    assert ended(stack, sent)["state"] == "flagged"


@pytest.mark.stack
def test_stow_and_a_resend_by_c_store_settle_once(stack: Stack, tmp_path: Path) -> None:
    """The same study through two doors: 200, then Success, and every image is settled once."""
    sent = phantom(tmp_path, 105, "lesion")
    answer = senders.stow(stack.addresses["stow"], sent.files)
    assert answer.status_code == 200
    assert len(answer.json()["00081199"]["Value"]) == len(sent.files)
    assert senders.accepted(senders.storescu(stack.dicom, sent.files)) == len(sent.files)
    assert ended(stack, sent)["state"] == "flagged"
    _one_outcome_each(stack, sent)


@pytest.mark.stack
def test_the_watched_folder_sends_a_study(stack: Stack, tmp_path: Path) -> None:
    """Files written slowly into the folder are taken when they are complete, and not before."""
    sent = phantom(tmp_path, 106, "clean")
    watched = stack.log.parent / "watched"
    with (watched / "half.dcm").open("wb") as half:
        content = sent.files[0].read_bytes()
        half.write(content[: len(content) // 2])
        half.flush()
        for path in sent.files[1:]:
            (watched / path.name).write_bytes(path.read_bytes())
        half.write(content[len(content) // 2 :])
    assert ended(stack, sent)["state"] == "not_flagged"
    wait_for("an empty folder", lambda: not list(watched.glob("*.dcm")))


@pytest.mark.stack
def test_kill_9_of_the_worker_in_mid_study_loses_and_doubles_nothing(stack: Stack, tmp_path: Path) -> None:
    """The worker is killed between two slices; every acknowledged image is settled exactly once and the flag stands."""
    sent = phantom(tmp_path, 107, "lesion")
    half = len(sent.files) // 2
    assert senders.accepted(senders.storescu(stack.dicom, sent.files[:half])) == half
    os.kill(stack.pid("worker"), signal.SIGKILL)
    assert senders.accepted(senders.storescu(stack.dicom, sent.files[half:])) == len(sent.files) - half
    assert ended(stack, sent)["state"] == "flagged"
    _one_outcome_each(stack, sent)


@pytest.mark.stack
def test_an_emptied_redis_is_rebuilt_and_reads_say_so(stack: Stack, tmp_path: Path) -> None:
    """FLUSHALL in mid-study: no read ever says `ok` with a study missing, and the list comes back as it was."""
    sent = phantom(tmp_path, 108, "lesion")
    half = len(sent.files) // 2
    assert senders.accepted(senders.storescu(stack.dicom, sent.files[:half])) == half
    wait_for("images seen", lambda: (stack.study(sent.uid) or {}).get("images_settled", 0) >= half)
    before = {item["study_instance_uid"] for item in stack.worklist()["items"]}
    host, _, port = stack.addresses["redis"].rpartition(":")
    with redis.Redis(host=host, port=int(port)) as client:
        client.flushall()
    assert senders.accepted(senders.storescu(stack.dicom, sent.files[half:])) == len(sent.files) - half
    wait_for("the whole list again", lambda: _complete(stack, before))
    assert ended(stack, sent)["state"] == "flagged"


def _complete(stack: Stack, before: set[str]) -> bool:
    answer = stack.worklist()
    now = {item["study_instance_uid"] for item in answer["items"]}
    assert answer["status"] != "ok" or now >= before, "ok with a study missing"
    return answer["status"] == "ok"


@pytest.mark.stack
def test_metrics_pass_promtool_and_nothing_holds_patient_data(stack: Stack, tmp_path: Path) -> None:
    """After a study went through: /metrics are clean, and names are in no metric, log line, Redis key or Kafka key."""
    import subprocess

    sent = phantom(tmp_path, 109, "lesion")
    assert senders.accepted(senders.storescu(stack.dicom, sent.files)) == len(sent.files)
    ended(stack, sent)
    seen = stack.log.read_text()
    for service, url in stack.addresses["metrics"].items():
        page = httpx.get(url, timeout=10).raise_for_status().text
        checked = subprocess.run(
            [senders.need("promtool"), "check", "metrics"], input=page, capture_output=True, text=True, check=False
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, ""), service
        assert httpx.get(url.replace("/metrics", "/live"), timeout=10).status_code == 200
        assert httpx.get(url.replace("/metrics", "/ready"), timeout=10).status_code == 200
        seen += page
    seen += "".join(_redis_keys(stack)) + "".join(_kafka_keys_and_headers(stack))
    for path in (stack.log.parent / "state").glob("*/*.log"):  # what the parts say, not the broker's segments
        seen += path.read_text(errors="replace")
    assert sent.uid in seen
    assert {name for name in sent.names if name in seen} == set()


def _redis_keys(stack: Stack) -> list[str]:
    host, _, port = stack.addresses["redis"].rpartition(":")
    with redis.Redis(host=host, port=int(port), decode_responses=True) as client:
        return [str(key) for key in client.scan_iter()]


def _kafka_keys_and_headers(stack: Stack) -> list[str]:
    topics = ("scans.stat", "scans.routine", "study.events", "scans.dead", "study.audit", "commitments")
    return [f"{record.key!r} {record.headers!r}" for record in _records(stack, topics)]


def _records(stack: Stack, topics: tuple[str, ...]) -> list[Any]:
    """Everything that lies on the topics now."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=stack.addresses["kafka"], fetch_max_wait_ms=100)
    try:
        places = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        found: list[Any] = []
        quiet = 0
        while quiet < 10:
            batch = consumer.poll(timeout_ms=300, max_records=100)
            quiet = 0 if batch else quiet + 1
            found += [record for records in batch.values() for record in records]
        return found
    finally:
        consumer.close()


def _one_outcome_each(stack: Stack, sent: Sent) -> None:
    """In the log itself: every image has one outcome key, however often it was scored (design decision 3)."""
    keys = {r.key.decode() for r in _records(stack, ("study.events",))}
    parts = [key.split("|") for key in keys if key.startswith(f"{sent.uid}|")]
    outcomes = [part[2] for part in parts if part[1] in {"scored", "not_analysed"}]
    assert sorted(outcomes) == sorted(sent.sops)
    assert sorted(part[2] for part in parts if part[1] == "arrived") == sorted(sent.sops)
