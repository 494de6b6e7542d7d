"""Claim check: payloads too large for a record are fetched from our store (any fsspec URL), and from nowhere else.

A record is written by whoever may write to the topic: a claim that leads elsewhere is not followed, or a worker would
read any file of its machine and call any address of its network for it.
"""

import re
from hashlib import sha256

import fsspec

from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Reason
from contracts.scans import Scan
from contracts.settings import PayloadSettings
from worker.scoring.part10 import meta_of

PEER = "payload store"
_NAME = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}")  # below the store's folder, as the producer names what it keeps


class ClaimedPayloads:
    """``settings``: the same store and the same largest payload as the producer's."""

    def __init__(self, settings: PayloadSettings) -> None:
        self._folder = settings.url.rstrip("/") + "/"
        self._largest_bytes = settings.max_bytes

    def __call__(self, scan: Scan) -> bytes:
        """The Part 10 bytes, from the record or from where its claim says.

        Raises NotAnalysable (PAYLOAD_MISSING) where the claim is none of our store, the store answers that there is
        none, or what it has is another object; PeerAway where the store does not answer.
        """
        if not scan.headers.claim:
            return scan.payload
        payload = _fetched(self._ours(scan.headers.claim), self._largest_bytes)
        _, start = meta_of(payload)
        # The record's digest is of the data set alone, without preamble and File Meta (contracts/scans.py).
        if sha256(memoryview(payload)[start:]).hexdigest() != scan.headers.digest:
            raise NotAnalysable(Reason.PAYLOAD_MISSING, "the stored payload has another digest")
        return payload

    def _ours(self, claim: str) -> str:
        if not (claim.startswith(self._folder) and _NAME.fullmatch(claim.removeprefix(self._folder))):
            raise NotAnalysable(Reason.PAYLOAD_MISSING, "the claim is none of our payload store")
        return claim


def _fetched(claim: str, largest_bytes: int) -> bytes:
    try:
        store, path = fsspec.core.url_to_fs(claim)
        _check_size(store.info(path)["size"], largest_bytes)
        return bytes(store.cat_file(path))
    except NotAnalysable:
        raise
    except FileNotFoundError as problem:
        if _reachable(claim):
            raise NotAnalysable(Reason.PAYLOAD_MISSING) from problem
        raise PeerAway(PEER, "the store's folder is not there") from problem
    except Exception as problem:  # every fsspec store has exceptions of its own
        raise PeerAway(PEER, type(problem).__name__) from problem


def _check_size(size_bytes: int, largest_bytes: int) -> None:
    if size_bytes > largest_bytes:  # no producer of ours wrote that
        raise NotAnalysable(Reason.PAYLOAD_MISSING, "the stored payload is larger than any that is taken")


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
