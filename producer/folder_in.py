"""A watched folder: a file is taken when it has stopped changing, and leaves only when it was acknowledged.

The life of a file
  1. seen, and then unchanged (size, modification time, inode) for ``folder_settle_s``
  2. read, and compared once more with what was seen: a file that changed while it was read is still growing
  3. stored: scan and ``arrived`` acknowledged
  4. deleted, or moved to ``.taken/``

A crash between 3 and 4 sends it again: at most IN_FLIGHT files are between the two at any time. A file refused for a
reason of its own goes to ``.refused/`` with that reason beside it; one that could not be stored waits and is tried
again. A file that is no DICOM, or whose pixel data ends early, may still be growing on a stalled mount: it gets
GRACE times the settling time before it is judged.
"""

import json
import os
import stat
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.settings import ProducerSettings
from producer.intake import Door, Received
from producer.memory import Budget
from producer.preamble import CLEAN, PREAMBLE_BYTES, PREFIX, program
from producer.reception import Outcome, Reception
from producer.stamp_call import monotonic_s, now_s, traceparent

TAKEN, REFUSED = ".taken", ".refused"
UNFINISHED = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".swp", "~")  # as copying tools write
IN_FLIGHT = 4  # files between being read and being gone
GRACE = 10
RETRY_S = 2.0  # after the broker or the store was away
LOOK_EVERY_S = 1.0  # at most; a quarter of the settling time where that is shorter


class Look(NamedTuple):
    """What tells that a file changed."""

    size: int
    modified_ns: int
    inode: int


@dataclass(slots=True)
class Watched:
    """One file in the folder: how it looked, since when it looks so, and when it may be tried."""

    look: Look
    since_s: float
    not_before_s: float = 0.0
    in_hand: bool = False


class FolderDoor:
    """``start`` looks in the background; ``close`` finishes what is in hand."""

    name = "folder"

    def __init__(self, settings: ProducerSettings, reception: Reception, budget: Budget, hooks: Hooks) -> None:
        self._folder = Path(settings.folder)
        self._settle_s, self._keep = settings.folder_settle_s, settings.folder_keep
        self._reception, self._budget, self._hooks = reception, budget, hooks
        self._watched: dict[Path, Watched] = {}
        self._turn = threading.Semaphore(IN_FLIGHT)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="triage-folder")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="triage-folder", daemon=True)

    def start(self) -> None:
        """Raises OSError where the folder cannot be made."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def addresses(self) -> Mapping[str, str]:
        """The folder's path."""
        return {"folder": str(self._folder)}

    def close(self, timeout_s: float) -> None:
        """No new file; those in hand are finished."""
        self._stop.set()
        self._thread.join(timeout_s)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._look_around()
            except OSError:  # the mount is gone: it may come back
                self._hooks.happened(Happening.FAULT, where="folder")
            self._stop.wait(min(LOOK_EVERY_S, self._settle_s / 4))

    def _look_around(self) -> None:
        """Remembers how every file looks now, forgets those that left, and takes those that have settled."""
        now = monotonic_s()
        found = dict(_files(self._folder))
        for path in self._watched.keys() - found.keys():
            if not self._watched[path].in_hand:
                del self._watched[path]
        for path, look in found.items():
            known = self._watched.get(path)
            if known is None or (known.look != look and not known.in_hand):
                self._watched[path] = Watched(look, now)
        for path, watched in sorted(self._watched.items(), key=lambda entry: entry[1].look.modified_ns):
            if self._due(watched, now):
                self._submit(path, watched)

    def _due(self, watched: Watched, now_s: float) -> bool:
        settled = now_s - watched.since_s >= self._settle_s and now_s >= watched.not_before_s
        return settled and not watched.in_hand and not self._stop.is_set()

    def _submit(self, path: Path, watched: Watched) -> None:
        while not self._turn.acquire(timeout=0.1):
            if self._stop.is_set():
                return
        watched.in_hand = True
        self._pool.submit(self._take, path, watched).add_done_callback(lambda _: self._turn.release())

    def _take(self, path: Path, watched: Watched) -> None:
        try:
            self._settle(path, watched)
        except FileNotFoundError:
            pass  # its owner took it away again
        except Exception:  # noqa: BLE001 - one bad file must not end the watch
            self._hooks.happened(Happening.FAULT, where="folder")
            watched.not_before_s = monotonic_s() + RETRY_S
        finally:
            watched.in_hand = False

    def _settle(self, path: Path, watched: Watched) -> None:
        """Reads, stores, and moves one file as the outcome says."""
        size_bytes = watched.look.size
        if size_bytes > self._reception.limits.largest_bytes:
            self._refuse(path, self._reception.refuse(_received(b""), Reason.TOO_LARGE))
        elif not self._budget.take(size_bytes):
            watched.not_before_s = monotonic_s() + RETRY_S
        else:
            try:
                self._store(path, watched)
            finally:
                self._budget.give(size_bytes)

    def _store(self, path: Path, watched: Watched) -> None:
        part10 = path.read_bytes()
        if _look(path) != watched.look or len(part10) != watched.look.size:
            return  # still growing: the next look starts its clock again
        young = monotonic_s() - watched.since_s < GRACE * self._settle_s
        outcome = self._reception.take(_received(part10), may_grow=young)
        if outcome.stored:
            self._done(path, watched)
        elif outcome.temporary:
            watched.not_before_s = monotonic_s() + RETRY_S
        elif outcome.reason is Reason.UNPARSABLE and young:
            watched.not_before_s = watched.since_s + GRACE * self._settle_s
        else:
            self._refuse(path, outcome)

    def _done(self, path: Path, watched: Watched) -> None:
        """A file that was replaced since it was read is another file: it stays."""
        if _look(path) != watched.look:
            return
        if self._keep:
            _disarm(path)
            _move(path, self._place(TAKEN, path))
        else:
            path.unlink()

    def _refuse(self, path: Path, outcome: Outcome) -> None:
        """The reason is written first: a file in ``.refused/`` always has one."""
        place = self._place(REFUSED, path)
        reason = outcome.reason or Reason.UNPARSABLE
        told = {"reason": reason.value, "sentence": reason.sentence, "detail": outcome.detail, "at": now_s()}
        place.with_name(f"{place.name}.json").write_text(json.dumps(told), encoding="utf-8")
        _disarm(path)
        _move(path, place)

    def _place(self, below: str, path: Path) -> Path:
        """The same path below ``.taken`` or ``.refused``; a name in use gets a number."""
        wanted = self._folder / below / path.relative_to(self._folder)
        wanted.parent.mkdir(parents=True, exist_ok=True)
        numbered = (wanted.with_name(f"{wanted.name}.{number}") for number in range(1, 1_000_000))
        return wanted if not wanted.exists() else next(place for place in numbered if not place.exists())


def _disarm(path: Path) -> None:
    """What we keep beginning like a program, though it is DICOM, begins with zeros from now on (see preamble.py)."""
    with path.open("r+b") as file:
        if program(file.read(PREAMBLE_BYTES + len(PREFIX))):
            file.seek(0)
            file.write(CLEAN)


def _move(path: Path, place: Path) -> None:
    path.replace(place)


def _received(part10: bytes) -> Received:
    return Received(part10, Door.FOLDER, "folder", now_s(), traceparent())


def _files(folder: Path) -> Iterator[tuple[Path, Look]]:
    """Files that may be finished objects: nothing hidden, temporary or linked, no DICOMDIR (PS3.10 8.6)."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if _may_be_finished(name):
                look = _look(path)
                if look is not None:
                    yield path, look


def _may_be_finished(name: str) -> bool:
    lower = name.lower()
    return not (lower.startswith((".", "~")) or lower.endswith(UNFINISHED) or lower == "dicomdir")


def _look(path: Path) -> Look | None:
    """None where there is no file, or something else: a pipe would never be read to its end."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Look(status.st_size, status.st_mtime_ns, status.st_ino)
