"""`triage local` as a user starts it: one line of addresses, everything watched, nothing left behind."""

import json
import os
import selectors
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka import KafkaAdminClient

from launch.stack.kafka_jars import java, kafka_jars
from launch.stack.part import ProgramMissing
from tests.conftest import missing
from tests.servers import asking
from tests.servers.processes import becomes_true, mentioning, running_in_group

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
READY_S = 240  # three Python services, Triton and a broker on a busy machine
END_S = 90
PARTS = {"broker", "redis", "triton", "producer", "worker", "worklist"}


@dataclass
class Local:
    """A running `triage local --json`."""

    process: subprocess.Popen[bytes]
    folder: Path
    errors: Path
    said: dict[str, Any] = field(default_factory=dict)

    @property
    def pids(self) -> dict[str, int]:
        """As it printed them."""
        return dict(self.said["pids"])

    @property
    def sentences(self) -> str:
        """What it told the person."""
        return self.errors.read_text()

    def wait_until_ready(self) -> None:
        """Reads the one line."""
        assert self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(READY_S), f"not ready:\n{self.sentences}"
        line = self.process.stdout.readline()
        assert line, f"it ended without a line:\n{self.sentences}"
        self.said = json.loads(line)

    def end(self, number: signal.Signals) -> int:
        """Sends the signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(END_S)

    def left_over(self) -> list[int]:
        """Processes that belong to this stack and run."""
        return sorted({*mentioning(str(self.folder)), *(p for g in self.pids_or_none() for p in running_in_group(g))})

    def pids_or_none(self) -> list[int]:
        """The parts' groups, when they were ever told."""
        return list(self.said.get("pids", {}).values())


@contextmanager
def started(tmp_path: Path, *arguments: str, name: str = "state") -> Iterator[Local]:
    """`triage local --json --dir`, killed at the end if a test has not ended it."""
    folder, errors = tmp_path / name, tmp_path / f"{name}.err"
    command = [sys.executable, "-m", "launch.cli", "local", "--json", "--dir", str(folder), *arguments]
    with errors.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=sink)
    local = Local(process, folder, errors)
    try:
        yield local
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        finally:
            process.kill()
            process.communicate()


@contextmanager
def ready(tmp_path: Path, *arguments: str, name: str = "state") -> Iterator[Local]:
    """The same, once it has printed its line."""
    with started(tmp_path, *arguments, name=name) as local:
        local.wait_until_ready()
        yield local


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """One for the tests that leave it whole."""
    with ready(tmp_path_factory.mktemp("local"), "--set", "flagging.quiet_s=3") as local:
        yield local


def status_of(url: str) -> int:
    """HTTP status of a GET."""
    with urllib.request.urlopen(url, timeout=20) as response:  # noqa: S310  # an address the stack printed
        return int(response.status)


def kill(pid: int) -> None:
    """Kill -9."""
    os.kill(pid, signal.SIGKILL)


def test_the_line_names_every_door_and_each_answers(running: Local) -> None:
    """The JSON has the promised keys and nothing else, and every address is one that serves."""
    keys = {"dicom", "ae_title", "stow", "worklist", "kafka", "redis", "triton", "metrics", "pids"}
    assert set(running.said) == keys
    assert set(running.said["metrics"]) == {"producer", "worker", "worklist"}
    assert set(running.pids) == PARTS
    for url in running.said["metrics"].values():
        assert status_of(url) == 200
        assert status_of(url.replace("/metrics", "/ready")) == 200
    assert status_of(f"{running.said['worklist']}/v1/worklist") == 200
    with redis.Redis.from_url(f"redis://{running.said['redis']}/0") as client:
        assert client.ping()
    host, _, port = running.said["dicom"].rpartition(":")
    echo = [sys.executable, "-m", "pynetdicom", "echoscu", host, port, "-aec", running.said["ae_title"]]
    assert subprocess.run(echo, check=False, capture_output=True, timeout=60).returncode == 0


def test_the_broker_has_four_partitions_of_every_topic(running: Local) -> None:
    """The services made their topics with the embedded partition count."""
    admin = KafkaAdminClient(bootstrap_servers=running.said["kafka"])
    try:
        topics = [topic for topic in admin.describe_topics() if not topic["name"].startswith("__")]
    finally:
        admin.close()
    assert {topic["name"] for topic in topics} >= {"scans.stat", "scans.routine", "study.events", "scans.dead"}
    assert {len(topic["partitions"]) for topic in topics} == {4}


def test_the_state_is_for_its_owner_only(running: Local) -> None:
    """Images and the queue lie in the folder: nobody else may look into it."""
    assert running.folder.stat().st_mode & 0o077 == 0


def test_a_second_stack_in_the_same_folder_is_refused(running: Local) -> None:
    """Two stacks would write into the same files: the second ends with a sentence, the first goes on."""
    command = [sys.executable, "-m", "launch.cli", "local", "--dir", str(running.folder)]
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert second.returncode == 1
    assert "another stack runs in" in second.stderr
    assert running.process.poll() is None


def test_a_second_stack_beside_the_first_shares_nothing(running: Local, tmp_path: Path) -> None:
    """Two stacks run at once: no address is the same, and the end of one does not touch the other."""
    with ready(tmp_path) as second:
        ours, theirs = (
            {value for key, value in local.said.items() if key not in ("ae_title", "metrics", "pids")}
            | set(local.said["metrics"].values())
            for local in (running, second)
        )
        assert ours.isdisjoint(theirs)
        assert second.end(signal.SIGINT) == 0
        assert becomes_true(lambda: second.left_over() == [])
    assert status_of(running.said["metrics"]["worker"]) == 200


@pytest.mark.parametrize("part", ["worker", "redis", "triton", "producer", "worklist"])
def test_a_killed_part_is_started_again_and_said(running: Local, part: str) -> None:
    """Kill -9 of any part but the broker: a sentence, and it serves again at its address."""
    before = running.sentences.count(f"{part} answers again")
    assert running.process.poll() is None
    kill(latest_pid(running, part))
    assert becomes_true(lambda: running.sentences.count(f"{part} answers again") > before, READY_S), running.sentences
    assert f"{part} ended (killed by SIGKILL)" in running.sentences
    assert latest_pid(running, part) != running.pids[part]
    assert status_of(running.said["metrics"]["worker"].replace("/metrics", "/live")) == 200


def latest_pid(running: Local, part: str) -> int:
    """Of the last start: printed at first, said afterwards."""
    said = [line for line in running.sentences.splitlines() if f" {part} answers again (process " in line]
    return int(said[-1].rpartition("process ")[2].rstrip(").")) if said else running.pids[part]


def test_sigterm_stops_everything_also_when_a_part_has_died(tmp_path: Path) -> None:
    """With the worker killed a moment before, SIGTERM still ends all in order: status 0, no process, one line."""
    with ready(tmp_path) as local:
        kill(local.pids["worker"])
        assert local.end(signal.SIGTERM) == 0
        assert local.process.stdout
        assert local.process.stdout.read() == b""
        assert becomes_true(lambda: local.left_over() == []), local.left_over()
        assert "everything is stopped" in local.sentences


def test_the_death_of_the_memory_only_broker_ends_everything(tmp_path: Path) -> None:
    """It cannot be brought back with what it held: a sentence says so, the exit status is 1, nothing is left."""
    with ready(tmp_path) as local:
        kill(local.pids["broker"])
        assert local.process.wait(END_S) == 1
        assert "kept everything in memory: nothing survives it" in local.sentences
        assert becomes_true(lambda: local.left_over() == [])


def test_of_a_temporary_folder_only_the_logs_outlive_the_broker(tmp_path: Path) -> None:
    """Why it died can be read, the queue is gone; what an earlier killed stack had left is gone from the start."""
    left = tmp_path / "lesion-triage-abcd1234"
    (left / "redis").mkdir(parents=True)
    (left / "lock").write_text("temporary\n")
    os.utime(left, (1e9, 1e9))
    errors = tmp_path / "err"
    command = [sys.executable, "-m", "launch.cli", "local", "--json"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with errors.open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=sink)
    local = Local(process, tmp_path, errors)
    try:
        local.wait_until_ready()
        assert f"{left} is removed: a stack that was killed had left it." in local.sentences
        assert not left.exists()
        (folder,) = tmp_path.glob("lesion-triage-*")
        kill(local.pids["broker"])
        assert process.wait(END_S) == 1
    finally:
        process.kill()
        process.communicate()
    assert f"the logs are kept in {folder} " in local.sentences
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.name for path in kept} == {f"{part}.log" for part in PARTS}


def test_a_signal_while_everything_is_being_stopped_does_not_cut_it_short(tmp_path: Path) -> None:
    """SIGTERM after the broker's death finds the stopping under way: the status still says 1 and nothing is left."""
    with ready(tmp_path, "--set", "scoring.drain_s=5") as local:
        os.kill(local.pids["worker"], signal.SIGSTOP)  # it keeps the stopping busy until it is killed
        kill(local.pids["broker"])
        assert becomes_true(lambda: not running_in_group(local.pids["worklist"]))
        assert local.end(signal.SIGTERM) == 1
        assert "nothing survives it" in local.sentences
        assert becomes_true(lambda: local.left_over() == [])


def test_nothing_outlives_a_killed_stack(tmp_path: Path) -> None:
    """Kill -9 of `triage local` itself ends every part and every helper of a part."""
    with ready(tmp_path) as local:
        kill(local.process.pid)
        local.process.wait()
        assert becomes_true(lambda: local.left_over() == []), local.left_over()


def test_a_signal_while_starting_leaves_nothing(tmp_path: Path) -> None:
    """Ctrl-C before everything is ready: what has started is stopped again."""
    with started(tmp_path) as local:
        assert becomes_true(lambda: len(mentioning(str(local.folder))) > 2)
        assert local.end(signal.SIGINT) == 0
        assert becomes_true(lambda: local.left_over() == [])
        assert local.process.stdout
        assert local.process.stdout.read() == b""


def test_a_second_signal_kills_what_does_not_stop(tmp_path: Path) -> None:
    """A frozen worker would be waited for five minutes; the second Ctrl-C does not wait, and leaves nothing."""
    with ready(tmp_path, "--set", "scoring.drain_s=300") as local:
        os.kill(local.pids["worker"], signal.SIGSTOP)
        local.process.send_signal(signal.SIGINT)
        assert becomes_true(lambda: not running_in_group(local.pids["worklist"]))
        assert local.end(signal.SIGINT) == 0
        assert becomes_true(lambda: local.left_over() == [])


def test_a_hangup_that_was_ignored_stays_ignored(tmp_path: Path) -> None:
    """Under nohup the stack lives on when the terminal closes; SIGTERM still ends it."""
    folder = tmp_path / "state"
    command = ["nohup", sys.executable, "-m", "launch.cli", "local", "--json", "--dir", str(folder)]
    with (tmp_path / "errors").open("wb") as sink:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink)
    local = Local(process, folder, tmp_path / "errors")
    try:
        local.wait_until_ready()
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)
        assert status_of(local.said["metrics"]["worklist"]) == 200
        assert local.end(signal.SIGTERM) == 0
    finally:
        process.kill()
        process.communicate()
    assert becomes_true(lambda: local.left_over() == [])


def test_a_part_that_cannot_start_ends_the_command_with_its_log(tmp_path: Path) -> None:
    """A model repository without a model that loads: exit status 1, the reason, the logs kept, no process."""
    (tmp_path / "models" / "broken" / "1").mkdir(parents=True)
    with started(tmp_path, "--set", f"model_repository={tmp_path / 'models'}") as local:
        assert local.process.wait(END_S) == 1
        assert "triton ended while starting" in local.sentences
        assert (local.folder / "triton" / "triton.log").is_file()
        assert becomes_true(lambda: local.left_over() == [])


@pytest.mark.kafka
def test_a_killed_kafka_broker_is_started_again_with_what_it_held(tmp_path: Path) -> None:
    """On Apache Kafka the broker's death is survived, and a stack in the same folder finds the records again."""
    try:
        java()
        kafka_jars()
    except ProgramMissing as error:
        missing(str(error))
    with ready(tmp_path, "--broker", "kafka") as local:
        asking.make_topic(local.said["kafka"], "kept")
        asking.append(local.said["kafka"], "kept", b"acknowledged")
        kill(local.pids["broker"])
        assert becomes_true(lambda: "broker answers again" in local.sentences, READY_S), local.sentences
        assert asking.read(local.said["kafka"], "kept", 1) == [b"acknowledged"]
        assert local.end(signal.SIGTERM) == 0
        assert becomes_true(lambda: local.left_over() == [])
    with ready(tmp_path, "--broker", "kafka") as local:
        assert asking.read(local.said["kafka"], "kept", 1) == [b"acknowledged"]
