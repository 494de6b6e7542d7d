"""The folder of an embedded stack: private, one stack at a time, removed with what it held, logs kept where it failed.

A folder of our own making says so in its lock file. Only such a folder is ever removed without being asked: one that
was given with ``--dir`` is somebody's, whatever its name.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launch.stack.part import StartFailed

PREFIX = "lesion-triage-"
LEFT_OVER_S = 60.0  # a younger folder may belong to a stack that has not yet taken its lock
_NAMED_BY_US = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}")  # as tempfile.mkdtemp names
_LOCK = "lock"
_TEMPORARY = "temporary\n"  # what the lock file of a folder of our own making holds


def private_folder(folder: Path | None) -> Path:
    """Images and the queue lie in it: nobody else on the machine may read it. None: a temporary one is made."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix=PREFIX))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder.resolve()


@contextmanager
def one_stack_in(folder: Path, *, temporary: bool) -> Iterator[None]:
    """Holds the folder's lock. Raises StartFailed while another stack does."""
    with (folder / _LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartFailed(f"another stack runs in {folder}: give this one a folder of its own.") from error
        lock.truncate(0)
        lock.write(_TEMPORARY if temporary else "")
        lock.flush()
        yield


def keep_only(logs: Iterable[Path], folder: Path) -> bool:
    """Removes everything else from the folder, and the folder if nothing is left; whether something is.

    ``logs`` are resolved paths, each named, not found as ``*.log``: so Kafka calls its records. The lock goes too: what
    is kept on purpose is no left-over.
    """
    kept = {log for log in logs if log.is_file()}
    for at, folders, files in os.walk(folder.resolve(), topdown=False):
        for path in (Path(at) / name for name in (*files, *folders)):
            if path not in kept:
                _remove(path)
    _remove(folder)
    return bool(kept)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a folder with a kept log below it stays
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def remove_left_overs(now: float) -> list[Path]:
    """Removes the temporary folders of stacks that were killed, and says which. ``now`` in seconds since the epoch.

    1. A directory of our own naming, of this user, older than a minute. 2. Its lock file says that we made it. 3. The
    lock is free: its owner is gone. It is held until the folder is.
    """
    try:
        found = sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*"))
    except OSError:
        return []
    return [folder for folder in found if _could_be_left(folder, now) and _removed(folder)]


def _could_be_left(folder: Path, now: float) -> bool:
    try:
        about = folder.lstat()
    except OSError:
        return False
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid()
    return ours and now - about.st_mtime > LEFT_OVER_S and bool(_NAMED_BY_US.fullmatch(folder.name))


def _removed(folder: Path) -> bool:
    try:
        lock = os.open(folder / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.read(lock, len(_TEMPORARY) + 1) != _TEMPORARY.encode():
            return False
        shutil.rmtree(folder)
    except OSError:
        return False  # its stack runs, or somebody else removes it now
    finally:
        os.close(lock)
    return True
