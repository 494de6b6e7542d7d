"""`python -m chaos` in the background of a script: both signals end it in good form. Its stack is not started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOON_S = 60.0

# The command itself, with a runner that finishes one run and waits in the second until it is interrupted.
COMMAND = """
import sys, time
from pathlib import Path
from chaos import __main__ as command
from tests.test_chaos.test_run_command import MadeUp

class Waiting(MadeUp):
    def run(self, fault, seed):
        if self.runs:
            Path(sys.argv[1], "waits").touch()
            time.sleep(600)
        return super().run(fault, seed)

    def __exit__(self, *_):
        Path(sys.argv[1], "closed").touch()

command.Runner = Waiting
sys.exit(command.main(["--fault", "kill_worker", "--runs", "2", "--keep", sys.argv[1] + "/runs.jsonl"]))
"""


def until(path: Path) -> None:
    """Waits for a file."""
    end = time.monotonic() + SOON_S
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_in_the_background_of_a_script_ends_on_either_signal(tmp_path: Path, number: signal.Signals) -> None:
    """A shell without job control has SIGINT ignored there: the stack is closed all the same, and the status is 130."""
    background = f'"$@" & echo $! > {tmp_path}/pid; wait $!; echo $? > {tmp_path}/status'
    command = ["sh", "-c", background, "sh", sys.executable, "-c", COMMAND, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as shell:
        until(tmp_path / "waits")
        os.kill(int((tmp_path / "pid").read_text()), number)
        _, told = shell.communicate(timeout=SOON_S)
    assert (tmp_path / "status").read_text().strip() == "130"
    assert (tmp_path / "closed").exists()
    assert "interrupted" in told
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1
