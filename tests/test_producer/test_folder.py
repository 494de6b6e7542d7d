"""The watched folder, against a real broker, with files that grow, come by rename, and a process that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from contracts.hooks import Happening
from launch.stack.tansu import Tansu
from producer.folder_in import IN_FLIGHT, REFUSED, TAKEN
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import Running, settings_of, wait_until, written
from tests.test_producer.senders import files

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

SETTLE_S = 0.3
ROOT = Path(__file__).parents[2]


def left(folder: Path) -> list[str]:
    """Files still in the folder, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_files_are_stored_as_they_are_and_then_deleted(start: Start, broker: str, tmp_path: Path) -> None:
    """Sub-folders too; DICOMDIR, hidden and temporary names stay untouched and unread."""
    images = [ct() for _ in range(6)]
    (tmp_path / "a" / "b").mkdir(parents=True)
    for number, path in enumerate(files(tmp_path, images)):
        path.rename(tmp_path / ("a/b" if number % 2 else "a") / path.name)
    others = ["DICOMDIR", ".hidden", "x.dcm.part", "y.tmp", "z~", ".git/config"]
    for name in others:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(part10(ct()))
    with start(broker, folder=str(tmp_path), folder_settle_s=SETTLE_S) as producer:
        wait_until(lambda: left(tmp_path) == sorted(others), 20)
        log = written(producer.settings, 6)
    assert sorted(scan.payload for scan in log.scans) == sorted(part10(image) for image in images)
    assert len(log.arrived) == 6


def test_a_file_that_grows_is_not_read_before_it_is_done(start: Start, tansu: str, tmp_path: Path) -> None:
    """Written slowly, in pieces shorter apart than the settling time, it is taken once and whole."""
    payload = part10(ct())
    with start(tansu, folder=str(tmp_path), folder_settle_s=SETTLE_S) as producer:
        with (tmp_path / "slow.dcm").open("wb") as file:
            for at in range(0, len(payload), 200):
                file.write(payload[at : at + 200])
                file.flush()
                time.sleep(SETTLE_S / 3)
                assert written_soon(producer) == 0
        wait_until(lambda: left(tmp_path) == [], 10)
        assert [scan.payload for scan in written(producer.settings, 1).scans] == [payload]


def written_soon(producer: Running) -> int:
    """What the producer counted as received."""
    return len(producer.hooks.labels_of(Happening.RECEIVED))


def test_a_copy_that_stalls_is_waited_for(start: Start, tansu: str, tmp_path: Path) -> None:
    """Half a file that stops growing for longer than the settling time is not taken as an image."""
    payload = part10(ct())
    with start(tansu, folder=str(tmp_path), folder_settle_s=SETTLE_S) as producer:
        with (tmp_path / "stalled.dcm").open("wb") as file:
            file.write(payload[: len(payload) // 2])
            file.flush()
            time.sleep(SETTLE_S * 4)
            assert (left(tmp_path), written_soon(producer)) == (["stalled.dcm"], 0)
            file.write(payload[len(payload) // 2 :])
        wait_until(lambda: left(tmp_path) == [], 20)
        assert [scan.payload for scan in written(producer.settings, 1).scans] == [payload]
        assert producer.hooks.labels_of(Happening.REFUSED) == []


def test_a_rename_into_place_is_taken_and_kept_where_asked(start: Start, tansu: str, tmp_path: Path) -> None:
    """The usual way to hand a file over; with ``folder_keep`` it moves to .taken under its own path."""
    payload = part10(ct())
    with start(tansu, folder=str(tmp_path), folder_settle_s=SETTLE_S, folder_keep=True) as producer:
        for number in range(2):
            hidden = tmp_path / ".incoming"
            hidden.write_bytes(payload)
            hidden.rename(tmp_path / "image.dcm")
            wait_until(lambda: not (tmp_path / "image.dcm").exists(), 10)
            assert len(left(tmp_path)) == number + 1
        assert left(tmp_path) == [f"{TAKEN}/image.dcm", f"{TAKEN}/image.dcm.1"]
        assert len(written(producer.settings, 1).scans) == 1


def test_a_refused_file_is_kept_with_its_reason(start: Start, tansu: str, tmp_path: Path) -> None:
    """Junk goes to .refused once it can no longer be a file that grows; nothing is deleted."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "notes.txt").write_text("not DICOM")
    with start(tansu, folder=str(tmp_path), folder_settle_s=0.1) as producer:
        wait_until(lambda: len(left(tmp_path)) == 2, 20)
        refused = tmp_path / REFUSED / "sub"
        wait_until((refused / "notes.txt").exists, 10)
        told = json.loads((refused / "notes.txt.json").read_text())
        assert (told["reason"], told["detail"]) == ("unparsable", "no DICM prefix")
        assert (refused / "notes.txt").read_text() == "not DICOM"
        assert producer.hooks.labels_of(Happening.REFUSED) == [{"door": "folder", "reason": "unparsable"}]


def test_files_wait_while_the_broker_is_away(start: Start, tmp_path: Path) -> None:
    """None is lost, none refused; they go when the broker comes."""
    part, folder = Tansu(tmp_path / "tansu"), tmp_path / "in"
    folder.mkdir()
    files(folder, [ct() for _ in range(3)])
    try:
        settings = {"folder": str(folder), "folder_settle_s": 0.1, "kafka": {"ack_timeout_s": 1.0}, "broker_away": True}
        with start(part.bootstrap, **settings) as producer:
            wait_until(lambda: len(producer.hooks.labels_of(Happening.REFUSED)) >= 3, 20)
            assert len(left(folder)) == 3
            part.start()
            wait_until(lambda: left(folder) == [], 30)
            assert len(written(producer.settings, 3).arrived) == 3
    finally:
        part.close()


def test_after_kill_9_at_most_what_was_in_flight_is_sent_again(tansu: str, topic_prefix: str, tmp_path: Path) -> None:
    """Every file ends on the topics, and no more than the files in hand are there twice."""
    count = 150
    images = [ct() for _ in range(count)]
    files(tmp_path, images)
    for part_of_the_way in (count * 2 // 3, count // 3):
        process = started(tansu, topic_prefix, tmp_path)
        try:
            wait_until(partial(no_more_than, part_of_the_way, tmp_path), 60)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    assert left(tmp_path)
    process = started(tansu, topic_prefix, tmp_path)
    try:
        wait_until(lambda: left(tmp_path) == [], 60)
    finally:
        process.terminate()
        process.wait()
    log = written(settings_of(tansu, topic_prefix, {}, {}), count)
    times = Counter(scan.headers.sop_instance_uid for scan in log.scans)
    assert set(times) == {image.SOPInstanceUID for image in images}
    assert sum(times.values()) - count <= 2 * IN_FLIGHT
    assert {event.sop_instance_uid for event in log.arrived} == set(times)


def no_more_than(count: int, folder: Path) -> bool:
    """So many files are still to be taken."""
    return len(left(folder)) <= count


def started(bootstrap: str, prefix: str, folder: Path) -> subprocess.Popen[bytes]:
    """A producer in its own process."""
    module = "tests.test_producer.folder_process"
    return subprocess.Popen([sys.executable, "-m", module, bootstrap, prefix, str(folder), "0.1"], cwd=ROOT)
