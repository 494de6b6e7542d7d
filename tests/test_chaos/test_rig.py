"""The running rig: everything is there, what a fault does to it is felt, and undoing it brings it back."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chaos.phantoms import Head, heads
from chaos.rig_call import RunningRig
from chaos.scenario import Disk, Load, Mood
from contracts.reasons import Reason
from launch.stack.service import PACKAGE_ROOT
from tests.servers.processes import becomes_true, runs
from tests.test_producer.senders import store

pytestmark = [pytest.mark.stack, pytest.mark.kafka]

LIMIT_S = 90.0  # nothing here measures speed
HOUR_S = 3600.0
OUT_OF_RESOURCES = 0xA700
PACKAGES = ("contracts", "producer", "worker", "worklist", "launch")

_names = iter(range(10_000))


@pytest.fixture(autouse=True)
def _healed(rig: RunningRig) -> Iterator[None]:
    """Each test begins on a healthy rig and leaves one."""
    rig.wait_healthy(LIMIT_S)
    yield
    rig.heal()
    rig.wait_healthy(LIMIT_S)


def head(*, positive: bool = True, large: float = 0.0) -> Head:
    """A study of four slices that nobody has seen."""
    load = Load(studies=1, images=(4, 4), positive=float(positive), stat=0.0, large=large)
    return heads(load, 1, f"rig{next(_names)}-{time.time_ns()}")[0]


def send(rig: RunningRig, study: Head, door: int = 0) -> set[int]:
    """The statuses its images get at one producer, through its link."""
    return {store(rig.dicom[door], picture.part10) for picture in study.pictures}


def closed(rig: RunningRig, study: Head) -> dict[str, Any]:
    """The study as the worklist tells it, once it has closed with all its images."""
    found: dict[str, Any] = {}

    def has_closed() -> bool:
        found.clear()
        found.update(asked(rig, study) or {})
        return bool(found.get("closed")) and found["images_settled"] >= len(study.pictures)

    assert becomes_true(has_closed, LIMIT_S), found
    return found


def asked(rig: RunningRig, study: Head) -> dict[str, Any] | None:
    """The study now."""
    try:
        answer = httpx.get(f"{rig.url}/v1/studies/{study.study_instance_uid}", timeout=10)
    except httpx.HTTPError:
        return None
    return answer.json() if answer.is_success else None


@pytest.mark.parametrize("door", [0, 1])
def test_a_study_sent_to_either_producer_ends_as_its_phantom_foretells(rig: RunningRig, door: int) -> None:
    """A bright block is flagged, a plain head is not; small images and claim-checked ones alike."""
    sick, well = head(large=0.5), head(positive=False)
    assert send(rig, sick, door) | send(rig, well, door) == {0}
    assert closed(rig, sick)["state"] == "flagged"
    assert closed(rig, well)["state"] == "not_flagged"


def test_large_images_take_the_claim_check(rig: RunningRig) -> None:
    """What the disk fault strikes is really in use: each large image is one file of the store."""
    before = sum(path.is_file() for path in rig.crew.payload.rglob("*"))
    assert send(rig, head(large=1.0)) == {0}
    assert sum(path.is_file() for path in rig.crew.payload.rglob("*")) == before + 4


@pytest.mark.parametrize("mood", [Mood.NAN, Mood.WRONG_SHAPE])
def test_a_sick_model_makes_studies_not_analysed_until_it_is_sound_again(rig: RunningRig, mood: Mood) -> None:
    """The served model changes its mood while it runs; scoring takes a spoilt answer for none."""
    rig.model(mood)
    during, after = head(), head()
    assert send(rig, during) == {0}
    told = closed(rig, during)
    assert (told["state"], told["reason"]) == ("not_analysed", Reason.MODEL_ANSWER_INVALID)
    rig.model(Mood.SOUND)
    assert send(rig, after) == {0}
    assert closed(rig, after)["state"] == "flagged"


def test_a_hanging_model_answers_nobody_and_catches_up_when_it_is_sound(rig: RunningRig) -> None:
    """While it hangs the study waits; afterwards it is scored without anybody's help."""
    rig.model(Mood.HANG)
    study = head()
    assert send(rig, study) == {0}
    assert becomes_true(lambda: (asked(rig, study) or {}).get("images_received") == 4, LIMIT_S)
    rig.pause(3)
    assert (asked(rig, study) or {})["images_settled"] == 0
    rig.model(Mood.SOUND)
    assert closed(rig, study)["state"] == "flagged"


def test_triton_without_the_model_is_told_as_ailing(rig: RunningRig) -> None:
    """A server that is up and does not know the model is not healthy; with it, it is."""
    rig.serve(model=False)
    assert rig.triton.answers()
    assert "triton does not know the model" in rig.ailing()
    rig.heal()
    rig.wait_healthy(LIMIT_S)


@pytest.mark.parametrize("trouble", [Disk.FULL, Disk.SYNC_FAILS])
def test_a_failing_disk_refuses_large_images_for_now_and_small_ones_never(rig: RunningRig, trouble: Disk) -> None:
    """Both producers answer 0xA700 where the claim check cannot be kept, and Success for what needs none."""
    rig.disk(trouble)
    large, small = head(large=1.0), head()
    assert send(rig, large, 0) | send(rig, large, 1) == {OUT_OF_RESOURCES}
    assert send(rig, small) == {0}
    rig.disk(Disk.SOUND)
    assert send(rig, large) == {0}
    assert closed(rig, large)["state"] == "flagged"


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
def test_services_whose_clocks_jump_go_on_flagging(rig: RunningRig, ahead_s: float) -> None:
    """All five services an hour off: a study is flagged and closed all the same; the jump is in their answers."""
    for part in rig.crew.parts:
        rig.clock(part, ahead_s)
    study = head()
    assert send(rig, study) == {0}
    assert closed(rig, study)["state"] == "flagged"
    date = httpx.get(f"{rig.url}/v1/worklist").headers["date"]
    told_s = time.mktime(time.strptime(date, "%a, %d %b %Y %H:%M:%S GMT")) - time.timezone
    assert told_s - time.time() == pytest.approx(ahead_s, abs=300)


@pytest.mark.parametrize("pick", ["producers", "workers", "brokers"])
def test_a_killed_part_is_missed_stays_down_and_is_revived(rig: RunningRig, pick: str) -> None:
    """Kill -9 shows as unhealthy; nothing starts the part again but ``revive``, at the same address."""
    part = getattr(rig, pick)[1]
    part.kill()
    assert not rig.healthy()
    assert f"{part.name} does not answer" in rig.ailing()
    rig.revive(part)
    rig.wait_healthy(LIMIT_S)


def test_all_brokers_killed_are_revived_one_after_the_other(rig: RunningRig) -> None:
    """The first of three has no quorum and is not waited for; afterwards a leader is known and images are taken."""
    for node in rig.brokers:
        node.kill()
    for node in rig.brokers:
        rig.revive(node)
    rig.wait_healthy(LIMIT_S)
    assert rig.leader() in rig.brokers
    assert send(rig, head()) == {0}


def test_a_cut_link_to_redis_is_felt_by_its_callers_only(rig: RunningRig) -> None:
    """Workers lose Redis while the worklist still reads it; healed, all is well again."""
    rig.links["redis"].cut()
    assert becomes_true(lambda: not any(part.answers() for part in rig.workers), LIMIT_S)
    assert rig.worklist.answers()
    rig.links["redis"].heal()
    rig.wait_healthy(LIMIT_S)


def test_an_extra_worker_joins_and_leaves(rig: RunningRig) -> None:
    """It becomes ready beside the others, ends by SIGTERM with status 0, and its process is gone."""
    part = rig.extra_worker()
    part.launch()
    part.wait_until_answering(LIMIT_S)
    pid = part.pid
    part.ask_to_stop()
    part.wait_until_stopped(part.stop_limit_s)
    assert part.status == 0
    assert not runs(pid)
    part.close()


def test_another_crew_runs_from_a_patched_tree_with_an_empty_queue(rig: RunningRig, tmp_path: Path) -> None:
    """What was changed in the copy is what answers; the ground stays up; the next crew is ours again."""
    study = head()
    assert send(rig, study) == {0}
    closed(rig, study)
    pids = [part.pid for part in (*rig.brokers, rig.redis, rig.triton)]
    before = rig.topic_prefix
    assert rig.ground.topics(before)
    rig.renew(patched(tmp_path, "contracts/worklist.py", 'NOTICE = "Triage only', 'NOTICE = "Planted'))
    assert asked(rig, study) is None
    assert rig.ground.topics(before) == []
    assert send(rig, study) == {0}
    assert closed(rig, study)["notice"].startswith("Planted")
    rig.renew()
    assert [part.pid for part in (*rig.brokers, rig.redis, rig.triton)] == pids
    assert send(rig, study) == {0}
    assert closed(rig, study)["notice"].startswith("Triage only")


def patched(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of our packages with one change."""
    for name in PACKAGES:
        shutil.copytree(PACKAGE_ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    text = (folder / file).read_text()
    assert text.count(old) == 1
    (folder / file).write_text(text.replace(old, new))
    return folder
