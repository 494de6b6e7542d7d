"""Ports of the embedded stack: ours from the choice until we let go."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch.stack import ports
from launch.stack.ports import LOOPBACK, hold_port

ROOT = Path(__file__).resolve().parents[2]


def test_held_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    """No two holders have the same port, and the kernel gives none of them to an outgoing connection."""
    held = [hold_port() for _ in range(200)]
    numbers = [port.number for port in held]
    for port in held:
        port.release()
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < ports._ephemeral_start()
    assert min(numbers) >= ports.LOWEST_PORT


def test_a_port_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger's server is noticed though it took no claim."""
    free = hold_port()
    free.release()
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, 0))
        stranger.listen()
        taken = stranger.getsockname()[1]
        monkeypatch.setattr(ports, "_candidates", lambda: iter((taken, free.number)))
        given = hold_port()
    assert given.number == free.number
    given.release()


def test_a_held_port_is_not_given_to_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second process that tries the same port first goes on to another, until the first lets go."""
    held = hold_port()
    script = (
        "from launch.stack import ports\n"
        f"ports._candidates = lambda: iter(({held.number}, {held.number + 1}, {held.number + 2}))\n"
        "print(ports.hold_port().number)"
    )
    command = [sys.executable, "-c", script]
    while_held = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    held.release()
    afterwards = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert int(while_held) != held.number
    assert int(afterwards) == held.number


def test_no_free_port_is_an_error_not_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """When every candidate is held, the search ends with a sentence."""
    held = hold_port()
    monkeypatch.setattr(ports, "_candidates", lambda: iter((held.number,)))
    with pytest.raises(OSError, match="no free loopback port"):
        hold_port()
    held.release()


def test_an_odd_ephemeral_range_falls_back_to_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A range that starts too low, or a file that cannot be read, must not leave us without candidates."""
    odd = tmp_path / "range"
    odd.write_text("1024 65535")
    for file in (odd, tmp_path / "missing"):
        monkeypatch.setattr(ports, "_EPHEMERAL_FILE", file)
        assert ports._ephemeral_start() == ports.EPHEMERAL_DEFAULT
