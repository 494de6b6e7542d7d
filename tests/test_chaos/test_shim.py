"""What is put under a service: a wall clock that jumps and a disk that fails."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.clock_call import Clock, compiled
from chaos.control_call import Control
from chaos.crew_call import SHIM
from chaos.scenario import Disk
from launch.stack.part import ProgramMissing
from producer.leftovers_out import LOCK
from tests.conftest import missing

ROOT = Path(__file__).parents[2]
HOUR_S = 3600.0
NEAR_S = 60.0  # between two looks at a clock on a busy machine; far from an hour

# Answers each line of standard input with what its expression is worth.
ASKED = "import sys\nfor line in sys.stdin: print(repr(eval(line)), flush=True)"


@contextmanager
def asked(setup: str, environment: dict[str, str]) -> Iterator[Any]:
    """``ask(expression)``: worth in another interpreter with that environment."""
    process = subprocess.Popen(
        [sys.executable, "-c", f"{setup}\n{ASKED}"],
        env={**os.environ, **environment},
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def ask(expression: str) -> Any:
        stdin.write(expression + "\n")
        stdin.flush()
        return eval(stdout.readline())  # noqa: S307  # what our own process printed

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """Of a process that is to be started."""
    try:
        return Clock(tmp_path / "clock", compiled(tmp_path))
    except ProgramMissing as error:
        missing(str(error))


def test_a_jump_moves_every_wall_clock_at_once_and_no_monotonic_one(clock: Clock) -> None:
    """time(), datetime and their nanoseconds jump in a running process, to and fro; monotonic time goes on."""
    walls = "(time.time(), datetime.datetime.now().timestamp(), time.time_ns() / 1e9)"
    with asked("import time, datetime", dict(clock.environment())) as ask:
        before_s = ask("time.monotonic()")
        for ahead_s in (HOUR_S, -HOUR_S, 0.0):
            clock.ahead(ahead_s)
            assert ask(walls) == pytest.approx([time.time() + ahead_s] * 3, abs=NEAR_S)
        assert 0 <= ask("time.monotonic()") - before_s < NEAR_S


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_waits_end_when_they_should_whatever_the_wall_clock_says(clock: Clock, ahead_s: float) -> None:
    """Sleep, events, queues, locks, futures and sockets wait by monotonic time: neither for ever nor not at all."""
    setup = (
        "import time, threading, queue, select, concurrent.futures as futures\n"
        "def took(wait):\n"
        "    began_s = time.monotonic()\n"
        "    try: wait()\n"
        "    except Exception: pass\n"
        "    return time.monotonic() - began_s\n"
        "lock = threading.Lock(); lock.acquire()\n"
    )
    waits = [
        "time.sleep(0.1)",
        "threading.Event().wait(0.1)",
        "queue.Queue().get(timeout=0.1)",
        "lock.acquire(timeout=0.1)",
        "futures.Future().result(0.1)",
        "select.select([], [], [], 0.1)",
    ]
    with asked(setup, dict(clock.environment())) as ask:
        clock.ahead(ahead_s)
        assert ask("time.time()") == pytest.approx(time.time() + ahead_s, abs=NEAR_S)
        for wait in waits:
            assert 0.09 <= ask(f"took(lambda: {wait})") < NEAR_S, wait


@pytest.mark.parametrize("trouble", [Disk.FULL, Disk.SYNC_FAILS])
def test_the_producers_store_says_that_it_is_away_while_its_disk_fails(tmp_path: Path, trouble: Disk) -> None:
    """The real PayloadStore under the shim: refused while the disk fails, with nothing left behind; kept before, after.

    Files elsewhere are written as ever.
    """
    store, control = tmp_path / "payload", Control(tmp_path / "disk", Disk.SOUND)
    setup = (
        "from pathlib import Path\n"
        "from producer.payload_out import PayloadStore\n"
        f"store = PayloadStore({store.as_uri()!r})\n"
        "def put(n):\n"
        "    try: return store.put(bytes([n]) * 100_000)\n"
        "    except Exception as problem: return f'{type(problem).__name__} {problem}'\n"
    )
    shim = {"PYTHONPATH": f"{SHIM}:{ROOT}", "CHAOS_DISK_FOLDER": str(store), "CHAOS_DISK_FILE": str(control.file)}
    with asked(setup, shim) as ask:
        assert ask("put(1)").startswith("file:")
        control.say(trouble)
        assert ask("put(2)") == "PeerAway payload store: OSError"
        assert ask(f"Path({str(tmp_path / 'elsewhere')!r}).write_bytes(bytes(9))") == 9
        control.say(Disk.SOUND)
        assert ask("put(3)").startswith("file:")
    files = [path for path in store.rglob("*") if path.is_file() and path.name != LOCK]
    kept = sorted(path.read_bytes()[0] for path in files)
    assert kept == [1, 3]
