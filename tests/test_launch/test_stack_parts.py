"""Every part of the embedded stack is really started, does real work, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from kafka.errors import KafkaTimeoutError

from launch.stack.apache_kafka import ApacheKafka
from launch.stack.part import ProgramMissing, StartFailed, port_open, wait_until_all_answer
from launch.stack.redis_server import RedisServer, redis_binary, valkey_binary
from launch.stack.tansu import Tansu
from launch.stack.triton_server import TritonServer
from tests.conftest import missing
from tests.servers import asking
from tests.servers.processes import becomes_true, running_in_group, runs

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests" / "servers" / "model_repository"

MAKERS: dict[str, Callable[[Path], Any]] = {
    "tansu": Tansu,
    "kafka": ApacheKafka,
    "redis": lambda folder: RedisServer(folder, redis_binary()),
    "valkey": lambda folder: RedisServer(folder, valkey_binary()),
    "triton": lambda folder: TritonServer(folder, MODELS),
}
EACH = ["tansu", pytest.param("kafka", marks=pytest.mark.kafka), "redis", "valkey", "triton"]
PORT = {"tansu": "kafka", "kafka": "kafka", "redis": "redis", "valkey": "redis", "triton": "grpc"}

Start = Callable[..., Any]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a part of that kind in a folder of that name; closes all at the end."""
    with ExitStack() as life:

        def started(kind: str, folder: str = "one") -> Any:
            part = MAKERS[kind](tmp_path / folder)
            life.callback(part.close)
            try:
                part.start()
            except ProgramMissing as error:
                missing(str(error))
            return part

        yield started


def port_of(kind: str, part: Any) -> int:
    """The port its callers use."""
    holder = part.nodes[0] if kind == "kafka" else part
    return int(holder.port(PORT[kind]))


@pytest.mark.parametrize("kind", EACH)
def test_a_started_part_does_its_work_and_a_stopped_one_leaves_no_process(kind: str, start: Start) -> None:
    """Once start() returns the real client is served; after stop() its process group and its port are empty."""
    part = start(kind)
    pid, port = part.pid, port_of(kind, part)
    assert asking.works(part)
    assert pid in running_in_group(pid)
    part.stop()
    assert not part.alive()
    assert part.pid == 0
    assert running_in_group(pid) == []
    assert not port_open(port)


@pytest.mark.parametrize("kind", EACH)
def test_two_of_a_kind_run_at_once(kind: str, start: Start) -> None:
    """A second part of the same kind has its own port and folder, and both do their work."""
    first, second = start(kind, "one"), start(kind, "two")
    assert port_of(kind, first) != port_of(kind, second)
    assert asking.works(first)
    assert asking.works(second)


@pytest.mark.parametrize("kind", EACH)
def test_a_killed_part_starts_again_at_the_same_address(kind: str, start: Start) -> None:
    """After kill -9 the group is empty, and start() brings the part back where its callers expect it."""
    part = start(kind)
    pid, port = part.pid, port_of(kind, part)
    part.kill()
    assert becomes_true(lambda: running_in_group(pid) == [])
    part.start()
    assert port_of(kind, part) == port
    assert part.pid not in (0, pid)
    assert asking.works(part)


@pytest.mark.kafka
def test_apache_kafka_keeps_what_it_acknowledged_through_kill_and_new_ports(start: Start, tmp_path: Path) -> None:
    """A record acknowledged before kill -9 is there after a start, also for a new cluster object on the same folder."""
    first = start("kafka")
    asking.make_topic(first.bootstrap, "kept")
    asking.append(first.bootstrap, "kept", b"acknowledged")
    first.kill()
    second = start("kafka")  # the same folder, other ports
    assert second.bootstrap != first.bootstrap
    assert asking.read(second.bootstrap, "kept", 1) == [b"acknowledged"]


@pytest.mark.kafka
def test_apache_kafka_starts_with_an_identity_that_looks_like_an_option(start: Start, tmp_path: Path) -> None:
    """One random cluster identity in 64 begins with a dash; the formatting tool must not take it for an option."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "cluster.id").write_text("-QjBmVX7Sm6Xe0yR0XH3aw", encoding="ascii")
    assert start("kafka").alive()


@pytest.mark.kafka
def test_apache_kafka_makes_no_topic_by_itself(kafka_broker: str) -> None:
    """A send to a topic that does not exist fails: a misspelt topic never appears with a wrong partition count."""
    with pytest.raises(KafkaTimeoutError):
        asking.append(kafka_broker, "no-such-topic", b"lost", block_ms=3000)


@pytest.mark.kafka
def test_three_brokers_lose_nothing_when_one_is_killed(tmp_path: Path) -> None:
    """With three replicas, a record acknowledged before and one after kill -9 of a broker are both read."""
    cluster = ApacheKafka(tmp_path, brokers=3)
    try:
        cluster.start()
        asking.make_topic(cluster.bootstrap, "kept", replication=3)
        asking.append(cluster.bootstrap, "kept", b"before")
        cluster.nodes[0].kill()
        assert not cluster.alive()
        survivors = ",".join(node.bootstrap for node in cluster.nodes[1:])
        asking.append(survivors, "kept", b"after", within_s=60)
        assert asking.read(survivors, "kept", 2) == [b"before", b"after"]
    except ProgramMissing as error:
        missing(str(error))
    finally:
        cluster.close()


def test_tansu_forgets_everything_when_it_ends(start: Start) -> None:
    """What the command line says of the embedded broker is true: nothing survives a restart."""
    part = start("tansu")
    asking.make_topic(part.bootstrap, "gone")
    asking.append(part.bootstrap, "gone", b"acknowledged")
    part.restart()
    asking.make_topic(part.bootstrap, "gone")
    assert asking.read(part.bootstrap, "gone", 1, within_ms=1500) == []


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_the_queue_is_there_again_after_kill_9(kind: str, start: Start) -> None:
    """The append-only file brings back what was written before kill -9."""
    part = start(kind)
    with redis.Redis.from_url(part.url) as client:
        client.set("rank", "1")
    part.kill()
    part.start()
    with redis.Redis.from_url(part.url) as client:
        assert client.get("rank") == b"1"
        assert client.config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_model_process_does_not_outlive_a_killed_triton(start: Start) -> None:
    """When only the server is killed, its model processes are swept before the next start."""
    part = start("triton")
    pid = part.pid
    assert len(running_in_group(pid)) > 1, "the Python backend runs the model in a process of its own"
    signal_to(pid, signal.SIGKILL)
    assert becomes_true(lambda: not part.alive())
    part.start()
    assert becomes_true(lambda: running_in_group(pid) == [])
    assert asking.works(part)


def test_triton_leaves_no_shared_memory(start: Start) -> None:
    """Neither a stopped nor a killed Triton leaves a region of its own in /dev/shm."""
    part = start("triton")
    regions = f"lesion-triage-{part.port('grpc')}-*"
    assert list(Path("/dev/shm").glob(regions))  # noqa: S108  # where Triton keeps it
    part.kill()
    assert not list(Path("/dev/shm").glob(regions))  # noqa: S108  # as above


@pytest.mark.parametrize("kind", ["tansu", "redis", "triton"])
def test_parts_die_with_a_killed_parent(kind: str, tmp_path: Path) -> None:
    """Kill -9 of the process that started a part ends the part and its helpers: no orphan remains."""
    script = f"""
import time
from pathlib import Path
from tests.test_launch.test_stack_parts import MAKERS
part = MAKERS[{kind!r}](Path({str(tmp_path)!r}))
part.start()
print(part.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert running_in_group(pid)
        parent.kill()
    assert becomes_true(lambda: not running_in_group(pid))


def test_a_part_lives_on_when_the_thread_that_started_it_ends(start: Start, tmp_path: Path) -> None:
    """The leash is tied to the process, not to the thread that happened to call start()."""
    part = RedisServer(tmp_path / "threaded")
    try:
        thread = threading.Thread(target=part.start)
        thread.start()
        thread.join()
        time.sleep(0.3)
        assert part.alive()
        assert asking.works(part)
    finally:
        part.close()


def test_a_part_that_ends_while_starting_says_so_with_its_log(tmp_path: Path) -> None:
    """The error names the part, how it ended, and shows what it printed."""
    program = script_in(tmp_path, "#!/bin/sh\necho 'disk is full' >&2\nexit 3\n")
    part = RedisServer(tmp_path / "part", program)
    with pytest.raises(StartFailed, match=r"(?s)redis ended while starting \(status 3\).*disk is full"):
        part.start()
    part.close()


def test_a_part_that_never_answers_is_killed_and_told(tmp_path: Path) -> None:
    """A silent program is not waited for longer than its limit, and does not stay behind."""
    program = script_in(tmp_path, "#!/bin/sh\necho $$ > pid\nexec sleep 600\n")
    part = RedisServer(tmp_path / "part", program)
    with pytest.raises(StartFailed, match=r"redis did not answer within 1 s"):
        part.start(limit_s=1)
    assert not runs(int((tmp_path / "part" / "pid").read_text()))
    part.close()


def test_waiting_for_several_ends_with_the_first_that_cannot_start(tmp_path: Path) -> None:
    """A part that ended is told at once, also while an earlier one in the list has not answered yet."""
    silent = RedisServer(tmp_path / "silent", script_in(tmp_path, "#!/bin/sh\nexec sleep 600\n"))
    ended = RedisServer(tmp_path / "ended", Path("/bin/false"))
    silent.start_limit_s = 240.0  # beyond the test's patience
    try:
        for part in (silent, ended):
            part.launch()
        with pytest.raises(StartFailed, match="ended while starting"):
            wait_until_all_answer([silent, ended])
    finally:
        silent.close()
        ended.close()


def test_a_program_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """stop() ends also what does not listen, with everything it started."""
    program = script_in(tmp_path, "#!/bin/sh\ntrap '' TERM\nsleep 600 &\nwhile :; do sleep 1; done\n")
    part = RedisServer(tmp_path / "part", program)
    part.stop_limit_s = 0.5
    part.launch()
    pid = part.pid
    assert becomes_true(lambda: len(running_in_group(pid)) > 1)
    part.close()
    assert becomes_true(lambda: running_in_group(pid) == [])


def test_a_missing_model_repository_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Triton is not even started, and the sentence names the folder and the setting."""
    part = TritonServer(tmp_path / "triton", tmp_path / "nowhere")
    with pytest.raises(StartFailed, match=r"nowhere does not exist \(setting model_repository\)"):
        part.start()
    part.close()


def test_a_model_that_cannot_load_stops_triton_with_the_reason(tmp_path: Path) -> None:
    """A server without its model is no server: it ends, and the error shows the model's own exception."""
    model = tmp_path / "models" / "broken"
    (model / "1").mkdir(parents=True)
    configuration = (MODELS / "echo" / "configs" / "cpu.pbtxt").read_text().replace('"echo"', '"broken"')
    (model / "config.pbtxt").write_text(configuration)
    (model / "1" / "model.py").write_text("raise RuntimeError('weights are missing')\n")
    part = TritonServer(tmp_path / "triton", tmp_path / "models")
    try:
        with pytest.raises(StartFailed, match=r"(?s)triton ended while starting.*weights are missing"):
            part.start()
    finally:
        part.close()


def script_in(folder: Path, text: str) -> Path:
    """An executable that stands in for a server with a fault."""
    program = folder / "program.sh"
    program.write_text(text)
    program.chmod(0o755)
    return program


def signal_to(pid: int, number: signal.Signals) -> None:
    """Sends it to that process alone."""
    os.kill(pid, number)
