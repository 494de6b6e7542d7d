"""What stays behind in the payload store is taken away: pieces that a kill left, and payloads no record leads to now.

A payload outlives its record, and its record's dead letter (design decision 2). Its age is by the store's own clock,
which writes both times that are compared. Whoever writes the same payload again makes it young, and both hold the
store's lock: the writer while it gives the name, we from the last look at the age to the deletion.

Only a folder is cleaned. An object store deletes by a lifecycle rule of its own.
"""

import fcntl
import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from contracts.errors import PeerError, SettingsError
from contracts.hooks import Happening, Hooks

EVERY_S = 6 * 3600.0  # between two looks
AWAY_S = 10.0  # to the next one, where the broker or the store was away
PART_S = 3600.0  # a piece nobody wrote to for that long is nobody's; its writer, if it lives, is told and tries again
LIVES = 2.0  # a record's time on the log, and then its dead letter's, which may be replayed to its last day
CLOSE_S = 2.0  # what is being deleted at the end
LOCK = ".lock"

_FOLDER = re.compile(r"[0-9a-f]{2}")
_PAYLOAD = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{12}\.part")


class Leftovers:
    """Implements ``producer.service.Door``: works beside the doors, at the start and then every ``EVERY_S``.

    ``kept_s``: how long a record can stay on the scan topics, asked of the broker; None: for ever. Raises PeerError.
    ``margin_s``: on top, for clocks that differ.
    """

    name = "leftovers"

    def __init__(self, url: str, kept_s: Callable[[], float | None], margin_s: float, hooks: Hooks) -> None:
        self._url, self._kept_s, self._margin_s, self._hooks = url, kept_s, margin_s, hooks
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-leftovers", daemon=True)

    def start(self) -> None:
        """In the background: broker and store may be away."""
        self._thread.start()

    def addresses(self) -> Mapping[str, str]:
        """It lets nobody in."""
        return {}

    def close(self, timeout_s: float) -> None:
        """After the file in hand."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(min(timeout_s, CLOSE_S))

    def sweep(self) -> None:
        """One look at everything. Raises PeerError while the broker is away, OSError while the store is."""
        store, path = fsspec.core.url_to_fs(self._url)
        if not isinstance(store, LocalFileSystem):
            return
        folder = Path(path)
        now_s = _now_s(folder)
        kept_s = self._kept_s()
        limit_s = None if kept_s is None else LIVES * kept_s + self._margin_s
        for file in _files(folder):
            if self._stop.is_set():
                return
            kind, older_s = ("part", PART_S) if _PART.fullmatch(file.name) else ("payload", limit_s)
            if older_s is not None and _removed(folder, file, now_s - older_s):
                self._hooks.happened(Happening.LEFTOVER_DELETED, kind=kind)

    def _run(self) -> None:
        wait_s = 0.0
        while not self._stop.wait(wait_s):
            wait_s = EVERY_S
            try:
                self.sweep()
            except (PeerError, SettingsError, OSError):  # told by those who need them; nothing waits for us
                wait_s = AWAY_S
            except Exception:  # noqa: BLE001 - left-overs cost room on the disk; an unexpected error is told and tried again
                self._hooks.happened(Happening.FAULT, where="leftovers")


@contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Held by a writer while a payload below ``folder`` takes its name: it is not deleted as the old one meanwhile.

    Where the file system knows no locks, nothing is deleted either.
    """
    handle = os.open(folder / LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def renewed(url: str, claim: str) -> bool:
    """Makes a payload of the store at ``url`` as young as one written now: a record is to lead to it once more.

    False where it is not there, cannot be changed, or is none of that store. An object store's is left as it is.
    """
    protocol, _ = fsspec.core.split_protocol(url)
    if protocol not in {None, "file", "local"}:
        return True
    place = claim.removeprefix(f"{url.rstrip('/')}/")
    below, _, name = place.partition("/")
    if place == claim or not (_FOLDER.fullmatch(below) and _PAYLOAD.fullmatch(name)):
        return False
    folder = Path(fsspec.core.url_to_fs(url)[1])
    try:
        with naming(folder):
            os.utime(folder / below / name, follow_symlinks=False)
    except OSError:
        return False
    return True


def _now_s(folder: Path) -> float:
    """By the clock that gives files their times."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.utime(handle)
        return os.fstat(handle).st_mtime
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    """What we once wrote: nothing by another name, nothing behind a link."""
    for below in sorted(folder.iterdir()):
        if not _FOLDER.fullmatch(below.name) or below.is_symlink() or not below.is_dir():
            continue
        for file in below.iterdir():
            if _PAYLOAD.fullmatch(file.name) or _PART.fullmatch(file.name):
                yield file


def _removed(folder: Path, file: Path, before_s: float) -> bool:
    """Deleted if it was last written before that. Looked at twice: the lock is not taken for each that stays."""
    if not _old(file, before_s):
        return False
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if not _old(file, before_s):
            return False
        file.unlink()
    finally:
        os.close(handle)
    return True


def _old(file: Path, before_s: float) -> bool:
    try:
        found = file.lstat()
    except FileNotFoundError:  # another producer was faster
        return False
    return stat.S_ISREG(found.st_mode) and found.st_mtime < before_s
