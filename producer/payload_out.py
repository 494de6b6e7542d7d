"""Claim check: objects too large for a record go to any fsspec store, before the record that names them is written."""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from contracts.errors import PeerAway


class PayloadStore:
    """``url``: an fsspec URL of a folder. Names are digests of the content: no patient data, no collisions.

    Written to a temporary name, synced and renamed where that is a disk; the size is verified everywhere.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._state = "unknown"

    def peers(self) -> Mapping[str, str]:
        """How the last write went."""
        return {"payload": self._state}

    def put(self, part10: bytes) -> str:
        """The URL to read it from. Raises PeerAway, whatever the store's own complaint."""
        digest = sha256(part10).hexdigest()
        claim = f"{self._url}/{digest[:2]}/{digest}"
        try:
            self._write(claim, part10)
        except Exception as problem:  # every fsspec store has exceptions of its own
            self._state = "away"
            raise PeerAway("payload store", type(problem).__name__) from problem
        self._state = "up"
        return claim

    def _write(self, claim: str, part10: bytes) -> None:
        store, path = fsspec.core.url_to_fs(claim)
        if isinstance(store, LocalFileSystem):
            _write_synced(Path(path), part10)
        else:
            store.pipe_file(path, part10)
        _verify(store, path, len(part10))


def _verify(store: Any, path: str, size_bytes: int) -> None:
    found = store.info(path)["size"]
    if found != size_bytes:
        raise OSError(f"{found} of {size_bytes} bytes")


def _write_synced(path: Path, part10: bytes) -> None:
    """1. Temporary file. 2. Its bytes reach the disk. 3. It takes its name. 4. The name reaches the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.urandom(6).hex()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(part10)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for folder in (path.parent, path.parent.parent):  # the second holds the first's name
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
