"""SIGTERM to the worklist with live readers, one of them silent, and a store that hangs: out in time, exit code 0."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from contracts.worklist import Change
from launch.stack.redis_server import RedisServer
from tests.test_worklist.conftest import Served, until
from tests.test_worklist.test_serve import Listener, silent_reader
from tests.test_worklist.view_writer import PARTITIONS, Writer, item

ROOT = Path(__file__).resolve().parents[2]
GRACE_S = 30.0  # Kubernetes' default grace period


class Process:
    """``triage worklist`` as a process of its own."""

    def __init__(self, folder: Path, redis_url: str, prefix: str) -> None:
        self._log = folder / "worklist.log"
        config = folder / "triage.toml"
        config.write_text(
            f'[redis]\nurl = "{redis_url}"\nkey_prefix = "{prefix}"\ntimeout_s = 1.0\n'
            f"[kafka]\npartitions = {PARTITIONS}\n[worklist]\nport = 0\n[probes]\nworklist_port = 0\n",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "launch.cli", "worklist", "--config", str(config)]
        with self._log.open("wb") as log:
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            self.running = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def addresses(self) -> dict[str, str]:
        """What it listens on, once ready."""
        told: dict[str, str] = until("ready", self._addresses, 60.0)
        return told

    def log(self) -> str:
        """All it wrote."""
        return self._log.read_text(encoding="utf-8")

    def _addresses(self) -> dict[str, str]:
        lines = (json.loads(line) for line in self.log().splitlines() if line.startswith("{"))
        return next((line["addresses"] for line in lines if line["event"] == "ready"), {})


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A store that a test may hang."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.close()


@pytest.mark.parametrize("hung", [False, True], ids=["store well", "store hung"])
def test_live_readers_are_let_go_and_it_ends_in_time(
    own: RedisServer, prefix: str, tmp_path: Path, *, hung: bool
) -> None:
    """Three that listen hear the end, one that takes nothing is cut, questions in hand are answered; exit code 0."""
    writer = Writer(own.url, prefix)
    writer.ready()
    writer.put_all([item(f"1.{n}", rank=n) for n in range(50)])
    process = Process(tmp_path, own.url, prefix)
    try:
        told = process.addresses()
        served = Served(told["worklist"], dict)
        listeners = [Listener(served) for _ in range(3)]
        with silent_reader(served):
            big = item("1.1").model_copy(update={"models": ("m" * 20_000,)})
            for _ in range(200):
                writer.put(big, Change.REVISED)
            until("all listen", lambda: all(len(one.heard) >= 200 for one in listeners))
            if hung:
                os.kill(_pid(own), signal.SIGSTOP)
            asking = _Asking(served)
            process.running.send_signal(signal.SIGTERM)
            not_ready = _becomes_unready(f"http://{told['probes']}/ready", process.running)
            assert process.running.wait(GRACE_S) == 0
            assert all(one.ended.wait(5) for one in listeners), "each stream was ended, not left open"
            assert asking.ended_well()
            assert not_ready
        assert "service_failed" not in process.log()
        assert "not_drained" not in process.log()
    finally:
        process.running.kill()
        process.running.wait()
        os.kill(_pid(own), signal.SIGCONT)


def _pid(server: RedisServer) -> int:
    assert server._process
    return server._process.pid


def _becomes_unready(probe: str, process: "subprocess.Popen[bytes]") -> bool:
    """Whether the probe said 503 before the process was gone."""
    while process.poll() is None:
        try:
            if httpx.get(probe, timeout=10).status_code == 503:
                return True
        except httpx.HTTPError:
            return False
    return False


class _Asking:
    """Asks for the list without pause, one connection a question, until the service is gone."""

    def __init__(self, served: Served) -> None:
        self.codes: list[int] = []
        self.broken: list[str] = []
        self._thread = threading.Thread(target=self._ask, args=(served,), daemon=True)
        self._thread.start()

    def ended_well(self) -> bool:
        """Every question was answered, or refused at the door: none was taken and then dropped."""
        self._thread.join(GRACE_S)
        return not self._thread.is_alive() and not self.broken and set(self.codes) <= {200}

    def _ask(self, served: Served) -> None:
        while True:
            try:
                self.codes.append(httpx.get(served.url + "/v1/worklist", timeout=20).status_code)
            except httpx.ConnectError:
                return
            except httpx.HTTPError as problem:
                self.broken.append(type(problem).__name__)
                return
