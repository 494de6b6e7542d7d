"""Claim check: payloads too large for a record are fetched from the store that the record names (any fsspec URL)."""

from hashlib import sha256

import fsspec

from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Reason
from contracts.scans import Scan
from worker.scoring.part10 import meta_of

PEER = "payload store"


def payload_of(scan: Scan) -> bytes:
    """The Part 10 bytes, from the record or from where its claim says.

    Raises NotAnalysable (PAYLOAD_MISSING) where the store answers that there is none, or what it has is another
    object; PeerAway where the store does not answer.
    """
    if not scan.headers.claim:
        return scan.payload
    payload = _fetched(scan.headers.claim)
    _, start = meta_of(payload)
    # The record's digest is of the data set alone, without preamble and File Meta (contracts/scans.py).
    if sha256(memoryview(payload)[start:]).hexdigest() != scan.headers.digest:
        raise NotAnalysable(Reason.PAYLOAD_MISSING, "the stored payload has another digest")
    return payload


def _fetched(claim: str) -> bytes:
    try:
        store, path = fsspec.core.url_to_fs(claim)
        return bytes(store.cat_file(path))
    except FileNotFoundError as problem:
        if _reachable(claim):
            raise NotAnalysable(Reason.PAYLOAD_MISSING) from problem
        raise PeerAway(PEER, "the store's folder is not there") from problem
    except Exception as problem:  # every fsspec store has exceptions of its own
        raise PeerAway(PEER, type(problem).__name__) from problem


def _reachable(claim: str) -> bool:
    """Whether the store itself is there: an unmounted disk also says that the file is not found.

    A claim is <store>/<2 letters>/<name>; object stores have no folders, and answer for themselves.
    """
    try:
        store, path = fsspec.core.url_to_fs(claim)
        folder = store._parent(store._parent(path))  # noqa: SLF001 (fsspec has no public name for it)
        return bool(store.exists(folder)) or "file" not in store.protocol
    except Exception:  # noqa: BLE001 (as above: no answer is no answer)
        return False
