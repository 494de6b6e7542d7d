"""Claim check: objects too large for a record go to any fsspec store, before the record that names them is written."""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from contracts.errors import PeerAway, PeerBusy
from producer.leftovers_out import naming
from producer.preamble import for_files

Pieces = tuple[bytes | memoryview, ...]


class PayloadStore:
    """``url``: an fsspec URL of a folder. Names are digests of the content: no patient data, no collisions.

    Written to a temporary name, synced and renamed where that is a disk; the size is verified everywhere.
    """

    def __init__(self, url: str, min_free_bytes: int = 0) -> None:
        """``min_free_bytes``: of a disk; what would leave it less is not written."""
        self._url, self._min_free_bytes = url.rstrip("/"), min_free_bytes
        self._state = "unknown"
        self._rooted = False  # whether the names that lead to the folder are known to be on the disk

    def peers(self) -> Mapping[str, str]:
        """How the last write went."""
        return {"payload": self._state}

    def put(self, part10: bytes) -> str:
        """The URL to read it from. Raises PeerAway, whatever the store's own complaint; PeerBusy on a full disk.

        A preamble that is a program's is not written: zeros are. The data set is (see preamble.py).
        """
        pieces = for_files(part10)
        digest = _digest(pieces)
        claim = f"{self._url}/{digest[:2]}/{digest}"
        try:
            self._write(claim, pieces, len(part10))
        except PeerBusy:
            self._state = "full"
            raise
        except Exception as problem:  # every fsspec store has exceptions of its own
            self._state = "away"
            raise PeerAway("payload store", type(problem).__name__) from problem
        self._state = "up"
        return claim

    def _write(self, claim: str, pieces: Pieces, size_bytes: int) -> None:
        store, path = fsspec.core.url_to_fs(claim)
        if isinstance(store, LocalFileSystem):
            place = Path(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            _check_room(place.parent, size_bytes + self._min_free_bytes)
            _write_synced(place, pieces)
            if not self._rooted:
                _root(place.parent.parent)
                self._rooted = True
        else:
            store.pipe_file(path, pieces[0] if len(pieces) == 1 else b"".join(pieces))
        _verify(store, path, size_bytes)


def _digest(pieces: Pieces) -> str:
    machine = sha256()
    for piece in pieces:
        machine.update(piece)
    return machine.hexdigest()


def _check_room(folder: Path, needed_bytes: int) -> None:
    """Raises PeerBusy. Before the disk is full: the broker, or a log, may live on it, too."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < needed_bytes:
        raise PeerBusy("payload store", "too little room on the disk")


def _verify(store: Any, path: str, size_bytes: int) -> None:
    found = store.info(path)["size"]
    if found != size_bytes:
        raise OSError(f"{found} of {size_bytes} bytes")


def _write_synced(path: Path, pieces: Pieces) -> None:
    """1. Temporary file. 2. Its bytes reach the disk. 3. It takes its name. 4. The name reaches the disk.

    A kill before 3 leaves the temporary file: leftovers_out.py takes it away, and payloads that are too old.
    """
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.part")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        with naming(path.parent.parent):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):  # the second holds the first's name
        _sync_folder(folder)


def _root(folder: Path) -> None:
    """Its own name and those above reach the disk, up to the mount: we may have made any of them, or an earlier run."""
    while not folder.is_mount():
        folder = folder.parent
        try:
            _sync_folder(folder)
        except PermissionError:
            return  # whoever may not look into it made nothing in it


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
