"""The demo as a person starts it: real servers, real associations, one JSON object, nothing left behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import missing
from tests.servers.processes import becomes_true, mentioning

ROOT = Path(__file__).resolve().parents[2]
STUDY = {
    *("study_instance_uid", "truth", "state", "reason", "urgency", "images_sent", "images_settled"),
    *("first_flag_after_images", "first_flag_s", "last_image_s"),
}


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A demo whose stack lives below ``folder``; its standard error goes to a file there."""
    command = [sys.executable, "-m", "launch.cli", "demo", "--json", "--set", "flagging.quiet_s=3", *arguments]
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRIAGE_")}
    with (folder / "err").open("w") as err:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, cwd=ROOT, env={**env, "TMPDIR": str(folder)}
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def said(folder: Path, pattern: str) -> list[str]:
    """What standard error holds by now."""
    return re.findall(pattern, (folder / "err").read_text())


def stays_up(process: "subprocess.Popen[str]", folder: Path) -> bool:
    assert process.poll() is None, (folder / "err").read_text()
    return bool(said(folder, "Ctrl-C stops everything"))


@pytest.mark.stack
def test_the_demo_flags_the_bleed_while_it_arrives_and_stays_up_until_it_is_told(tmp_path: Path) -> None:
    """One object on standard output, everything settled, every service's metrics sound, and a clean end."""
    if shutil.which("promtool") is None:
        missing("promtool is not installed (apt: prometheus)")
    with demo(tmp_path, "--studies", "3") as process:
        assert becomes_true(lambda: stays_up(process, tmp_path), within_s=200)
        metrics = said(tmp_path, r"metrics of \w+: (\S+)")
        assert len(metrics) == 3
        for url in metrics:
            exposed = httpx.get(url, trust_env=False).content
            checked = subprocess.run(["promtool", "check", "metrics"], input=exposed, capture_output=True, check=False)
            assert (checked.returncode, checked.stderr) == (0, b""), url
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    told = json.loads(out)
    assert set(told) == {"sent", "studies", "worklist"}
    assert all(set(study) == STUDY for study in told["studies"])
    by_truth = {study["truth"]: study for study in told["studies"]}
    assert set(by_truth) == {"clean", "lesion", "out_of_scope"}
    assert all(study["images_settled"] == study["images_sent"] > 0 for study in told["studies"])
    assert sum(study["images_sent"] for study in told["studies"]) == told["sent"]["images"]
    assert by_truth["out_of_scope"]["state"] == "not_analysed"
    assert by_truth["out_of_scope"]["reason"] == "modality_out_of_scope"
    bleed = by_truth["lesion"]
    assert bleed["state"] == "flagged"
    assert bleed["first_flag_after_images"] < bleed["images_sent"]
    assert 0 < bleed["first_flag_s"] < bleed["last_image_s"]
    assert told["worklist"][0] == bleed["study_instance_uid"]
    assert set(told["worklist"]) == {study["study_instance_uid"] for study in told["studies"]}
    assert becomes_true(lambda: not mentioning(str(tmp_path)))


@pytest.mark.stack
def test_a_demo_that_is_stopped_in_the_middle_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM while images are being sent: exit code 1, no object, no process, no folder."""
    with demo(tmp_path, "--exit", "--rate", "1") as process:
        assert becomes_true(lambda: bool(said(tmp_path, r"clean head.*receiving")), within_s=120)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert said(tmp_path, "everything is stopped")
    assert becomes_true(lambda: not mentioning(str(tmp_path)))
    assert not list(tmp_path.glob("lesion-triage-*"))
