"""The first thing a newcomer sees: the default demo tells the story it promises, with the model that is shipped."""

import json
import subprocess
import sys

import pytest


@pytest.mark.stack
def test_the_default_demo_reads_every_bleed_before_every_clean_head() -> None:
    """Bleeds are flagged before their last image and read first, clean heads not flagged, the MR is out of scope."""
    command = [sys.executable, "-m", "launch.cli", "demo", "--exit", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    told = json.loads(ended.stdout)
    by_truth: dict[str, list[dict[str, object]]] = {}
    for study in told["studies"]:
        by_truth.setdefault(str(study["truth"]), []).append(study)
    assert {study["state"] for study in by_truth["lesion"]} == {"flagged"}
    assert {study["state"] for study in by_truth["clean"]} == {"not_flagged"}
    assert {study["state"] for study in by_truth["out_of_scope"]} == {"not_analysed"}
    assert all(study["first_flag_s"] < study["last_image_s"] for study in by_truth["lesion"])  # type: ignore[operator]
    places = {uid: place for place, uid in enumerate(told["worklist"])}
    bleeds, clean = ([places[str(s["study_instance_uid"])] for s in by_truth[truth]] for truth in ("lesion", "clean"))
    assert max(bleeds) < min(clean)
