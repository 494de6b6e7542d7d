"""The Makefile: every target does what its line in `make help` says, also where a folder has its name."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_never_up_to_date(target: str) -> None:
    """`make chaos` once did nothing, as there is a folder chaos/: each target must be told to be no file."""
    told = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert "up to date" not in told.stdout
    assert len(told.stdout.splitlines()) >= 1


def test_the_targets_that_the_project_promises_are_there() -> None:
    """What README and the pages build on."""
    assert {"demo", "local", "test", "lint", "bench", "chaos", "fuzz", "train"} <= set(TARGETS)
