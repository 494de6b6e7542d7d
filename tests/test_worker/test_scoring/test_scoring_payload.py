"""Claims of the claim check: only our own store is asked, and never for more than it may hold."""

from hashlib import sha256
from pathlib import Path

import pytest

from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Reason
from contracts.scans import Scan, ScanHeaders
from contracts.settings import PayloadSettings
from worker.scoring.payload_in import ClaimedPayloads

PAYLOAD = bytes(128) + b"DICM" + b"data set"
NAME = f"ab/{0:064x}"


def scan(claim: str) -> Scan:
    """A record whose payload lies elsewhere."""
    digest = sha256(PAYLOAD[132:]).hexdigest()
    return Scan(ScanHeaders("1.2", "1.2.1", "1.2.1.1", "1", "1", digest, "p", "S", 1.0, "", 5, claim=claim), b"")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that holds one payload."""
    (tmp_path / "store" / "ab").mkdir(parents=True)
    (tmp_path / "store" / NAME).write_bytes(PAYLOAD)
    return tmp_path / "store"


def test_a_payload_of_our_store_is_fetched(store: Path) -> None:
    """With and without a slash at the end of the setting."""
    for url in (f"file://{store}", f"file://{store}/"):
        assert ClaimedPayloads(PayloadSettings(url=url))(scan(f"file://{store}/{NAME}")) == PAYLOAD


@pytest.mark.parametrize(
    "claim",
    [
        "file:///dev/zero",
        "file:///proc/self/environ",
        "http://127.0.0.1:9/ab/cd",
        "s3://elsewhere/ab/cd",
        "simplecache::file:///etc/passwd",
        f"file:///elsewhere/{NAME}",
        f"{{store}}/../other/{NAME}",
        f"{{store}}/ab/../{NAME}",
        f"{{store}}{NAME}",
        "{store}/ab",
        "{store}/",
    ],
)
def test_a_claim_that_leads_elsewhere_is_not_followed(store: Path, claim: str) -> None:
    """Whoever may write a record may not make a worker read any file or call any address: the image is missing."""
    with pytest.raises(NotAnalysable) as told:
        ClaimedPayloads(PayloadSettings(url=f"file://{store}"))(scan(claim.replace("{store}", f"file://{store}")))
    assert told.value.reason is Reason.PAYLOAD_MISSING


def test_without_a_store_no_claim_is_followed() -> None:
    """A worker that was given no store cannot tell its own claims from others."""
    with pytest.raises(NotAnalysable):
        ClaimedPayloads(PayloadSettings())(scan(f"file:///tmp/{NAME}"))


def test_a_payload_larger_than_any_that_is_taken_is_not_read(store: Path) -> None:
    """The store's own word on the size comes first: what no producer of ours wrote does not get into memory."""
    payloads = ClaimedPayloads(PayloadSettings(url=f"file://{store}", max_bytes=len(PAYLOAD) - 1))
    with pytest.raises(NotAnalysable, match="larger"):
        payloads(scan(f"file://{store}/{NAME}"))


def test_a_store_that_is_not_there_is_waited_for(store: Path) -> None:
    """An unmounted disk is no fault of the image."""
    with pytest.raises(PeerAway):
        ClaimedPayloads(PayloadSettings(url=f"file://{store}-later"))(scan(f"file://{store}-later/{NAME}"))
