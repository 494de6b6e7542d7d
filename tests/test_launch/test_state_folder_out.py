"""The folder of an embedded stack: what is removed, what is never touched. Real folders, real locks."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.stack.part import StartFailed
from launch.state_folder_out import LEFT_OVER_S, keep_only, one_stack_in, private_folder, remove_left_overs

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary folders of its own, so that no other stack's is touched."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed_stack(folder: Path | None = None) -> Path:
    """A process makes a state folder, locks it, writes into it and is killed with kill -9."""
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from launch.state_folder_out import one_stack_in, private_folder\n"
        "given = Path(sys.argv[1]) if sys.argv[1:] else None\n"
        "folder = private_folder(given)\n"
        "with one_stack_in(folder, temporary=given is None):\n"
        "    (folder / 'redis').mkdir(); (folder / 'redis' / 'dump.rdb').write_text('x')\n"
        "    print(folder, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", code, *([str(folder)] if folder else [])]
    told = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": tempfile.gettempdir()},
    )
    assert told.returncode == -9, told.stderr
    return Path(told.stdout.strip())


def later() -> float:
    """When a folder made now is old enough."""
    return time.time() + LEFT_OVER_S + 1


def test_what_a_killed_stack_left_is_removed_once_it_is_a_minute_old() -> None:
    """Its folder may hold patient data: the next stack removes it, but none that was made a moment ago."""
    left = killed_stack()
    assert left.stat().st_mode & 0o777 == 0o700
    assert remove_left_overs(time.time()) == []
    assert (left / "redis" / "dump.rdb").exists()
    assert remove_left_overs(later()) == [left]
    assert not left.exists()


def test_the_folder_of_a_stack_that_runs_is_left_alone() -> None:
    """Its lock is held, however old it is."""
    folder = private_folder(None)
    with one_stack_in(folder, temporary=True):
        assert remove_left_overs(later()) == []
        assert folder.exists()


def test_a_folder_that_was_given_is_never_removed_whatever_its_name(temporary: Path) -> None:
    """``--dir`` is kept on purpose, also one named like ours, and one of ours that was taken over with ``--dir``."""
    given = killed_stack(temporary / "lesion-triage-hospital")
    taken_over = private_folder(None)
    with one_stack_in(taken_over, temporary=True):
        pass
    with one_stack_in(private_folder(taken_over), temporary=False):
        pass
    assert remove_left_overs(later()) == []
    assert (given / "redis" / "dump.rdb").exists()
    assert taken_over.exists()


def _link(at: Path) -> None:
    target = at.parent / "elsewhere"
    target.mkdir()
    (target / "lock").write_text("temporary\n")
    at.symlink_to(target)


def _linked_lock(at: Path) -> None:
    at.mkdir()
    (at.parent / "target").write_text("temporary\n")
    (at / "lock").symlink_to(at.parent / "target")


def _without_lock(at: Path) -> None:
    at.mkdir()


def _of_another_name(at: Path) -> None:
    at = at.with_name("lesion-triage-notes-of-mine")
    at.mkdir()
    (at / "lock").write_text("temporary\n")


@pytest.mark.parametrize("make", [_link, _linked_lock, _without_lock, _of_another_name])
def test_what_is_not_surely_ours_is_left_alone(make: Callable[[Path], None], temporary: Path) -> None:
    """A link, a lock that is a link, a folder without a lock (kept logs), another name."""
    make(temporary / "lesion-triage-abcd1234")
    before = sorted(temporary.rglob("*"))
    assert remove_left_overs(later()) == []
    assert sorted(temporary.rglob("*")) == before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder to somebody else")
def test_somebody_elses_folder_is_left_alone() -> None:
    """Root could remove it, and does not."""
    left = killed_stack()
    os.chown(left, 12345, 12345)
    assert remove_left_overs(later()) == []
    assert left.exists()


def test_a_second_stack_is_refused_and_the_lock_still_says_whose_folder_it_is() -> None:
    """Looking at a held lock does not change it."""
    folder = private_folder(None)
    with one_stack_in(folder, temporary=True), pytest.raises(StartFailed, match="another stack runs in"):
        one_stack_in(folder, temporary=False).__enter__()
    assert remove_left_overs(later()) == [folder]


def test_only_the_named_logs_are_kept_and_they_are_no_left_over() -> None:
    """Kafka calls its records *.log: they go, as do queue, payloads and links; kept logs stay for good."""
    folder = private_folder(None).resolve()
    for name in ("broker/broker.log", "broker/data/scans-0/0.log", "redis/dump.rdb", "payload/a/b"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "link").symlink_to(folder / "redis")
    with one_stack_in(folder, temporary=True):
        assert keep_only([folder / "broker" / "broker.log", folder / "redis" / "redis.log"], folder)
    assert [path.name for path in sorted(folder.rglob("*"))] == ["broker", "broker.log"]
    assert remove_left_overs(later()) == []


def test_nothing_to_keep_leaves_nothing() -> None:
    """After a good end the folder is gone."""
    folder = private_folder(None)
    (folder / "payload" / "a").mkdir(parents=True)
    with one_stack_in(folder, temporary=True):
        assert not keep_only([], folder)
    assert not folder.exists()
