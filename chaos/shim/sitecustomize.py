# ruff: noqa: INP001 — found on PYTHONPATH, not imported as a package
"""Loaded by a producer's interpreter before anything else: the file store's disk fails when a control file says so.

``CHAOS_DISK_FOLDER`` is the store, ``CHAOS_DISK_FILE`` holds a word of ``chaos.scenario.Disk``. A full disk takes half
of what is written and then says ENOSPC; one whose sync fails says EIO. Everything elsewhere is untouched.
"""

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FOLDER = os.path.realpath(os.environ["CHAOS_DISK_FOLDER"]) if "CHAOS_DISK_FOLDER" in os.environ else ""
_open, _fsync = io.open, os.fsync


def _said() -> str:
    with _open(os.environ["CHAOS_DISK_FILE"], encoding="ascii") as file:
        return file.read().strip()


def _ours(path: str) -> bool:
    return path == _FOLDER or path.startswith(_FOLDER + os.sep)


class _Disk(io.FileIO):
    """A file below the store."""

    def write(self, piece: Any) -> int:
        """As the disk lets it."""
        if _said() != "full":
            return super().write(piece)
        super().write(memoryview(piece).cast("B")[: len(piece) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _open_below(file: Any, mode: str = "r", *others: Any, **named: Any) -> Any:
    writes = "b" in mode and any(letter in mode for letter in "wax+")
    if writes and isinstance(file, str | Path) and _ours(os.path.realpath(file)):
        return io.BufferedWriter(_Disk(os.fspath(file), mode.replace("b", "")))
    return _open(file, mode, *others, **named)


def _fsync_below(handle: Any) -> None:
    number = handle if isinstance(handle, int) else handle.fileno()
    if _ours(str(Path(f"/proc/self/fd/{number}").readlink())) and _said() == "sync_fails":
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    _fsync(handle)


def _install(opened: Callable[..., Any], synced: Callable[..., Any]) -> None:
    io.open = builtins.open = opened
    os.fsync = synced


if _FOLDER:
    _install(_open_below, _fsync_below)
