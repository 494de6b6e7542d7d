"""The life of a process: real children, real signals, exit codes that tell the truth."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.servers.processes import becomes_true
from tests.test_launch.service_child import DRAIN_S


class Running:
    """A child and what it says, line by line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def until(self, event: str) -> dict[str, Any]:
        """The first line of that event from now on."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(json.loads(line))
            if self.told[-1]["event"] == event:
                return self.told[-1]
        raise AssertionError(f"{event} was never told: {self.told}")

    def rest(self) -> str:
        """Everything else, once it has ended."""
        return self.process.communicate(timeout=60)[1]


@contextmanager
def child(behaviour: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "tests.test_launch.service_child", behaviour]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield Running(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_ends_with_0(number: signal.Signals) -> None:
    """The service returns after its stop event, says its last word, and the process ends clean."""
    with child("drains") as running:
        running.until("ready")
        running.process.send_signal(number)
        out, err = running.process.communicate(timeout=60)
        assert running.process.returncode == 0
        assert out == "drained\n"
        assert json.loads(err.splitlines()[-1]) | {"ts": ""} == {
            "ts": "",
            "level": "info",
            "service": "child",
            "event": "stopped",
            "clean": True,
        }


def test_a_second_signal_ends_at_once() -> None:
    """A person who insists is not made to wait for the drain."""
    with child("never_drains") as running:
        running.until("ready")
        running.process.send_signal(signal.SIGTERM)
        running.until("stopping")
        time.sleep(1.2)  # within a second it would be taken for the same wish
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == 128 + signal.SIGTERM
        assert "not_drained" not in running.rest()


def test_a_signal_told_twice_at_once_is_one_wish() -> None:
    """A terminal's SIGINT and a supervisor's SIGTERM together still drain."""
    with child("drains") as running:
        running.until("ready")
        running.process.send_signal(signal.SIGINT)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == 0


def test_a_service_that_raises_takes_the_process_with_it_and_no_word_of_its_error_is_told() -> None:
    """Exit code 1; the log names the error's type and place, but not its text, which might be patient data."""
    with child("raises") as running:
        failed = running.until("service_failed")
        assert running.process.wait(timeout=30) == 1
        assert failed["error"] == "ValueError"
        assert any("service_child.py" in place for place in failed["where"])
        assert "Doe" not in json.dumps(running.told) + running.rest()


def test_a_service_that_ends_unasked_is_a_failure() -> None:
    """A process whose service is gone must not look alive."""
    with child("returns") as running:
        running.until("service_ended_unasked")
        assert running.process.wait(timeout=30) == 1


def test_a_wrong_setting_found_while_running_is_the_sentence_of_a_wrong_setting() -> None:
    """A broker that does not meet ``require_durable`` is found after the start: 2 and a sentence, no traceback."""
    with child("finds_a_wrong_setting") as running:
        out, err = running.process.communicate(timeout=30)
        assert running.process.returncode == 2
        assert out == "kafka.require_durable is set, and the broker is not."
        assert "service_failed" not in err


def test_a_service_that_does_not_drain_in_time_is_told_and_left() -> None:
    """The process ends with 1 after the drain time, so that a supervisor need not kill it."""
    with child("never_drains") as running:
        running.until("ready")
        running.process.terminate()
        assert running.until("not_drained") | {"ts": ""} == {
            "ts": "",
            "level": "error",
            "service": "child",
            "event": "not_drained",
            "names": ["child"],
            "drain_s": DRAIN_S,
        }
        assert running.process.wait(timeout=30) == 1


def test_a_draining_process_is_live_and_not_ready() -> None:
    """While it drains nobody should send it anything new, and nobody should kill it."""
    with child("never_drains") as running:
        probes = "http://" + running.until("ready")["addresses"]["probes"]
        assert httpx.get(f"{probes}/ready").status_code == 200
        running.process.terminate()
        assert becomes_true(lambda: httpx.get(f"{probes}/ready").status_code == 503)
        assert httpx.get(f"{probes}/live").status_code == 200
