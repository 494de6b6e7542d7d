"""The scanners: what they hear goes into the ledger; what is refused for now is sent again at the other producer."""

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from pynetdicom import AE, evt

from chaos.ledger import Ledger
from chaos.load_out import Doors, Scanners, posted
from chaos.phantoms import heads
from chaos.scenario import Load, Order
from chaos.sendings import sendings
from chaos.watch_in import Away, connected, read_list

SUCCESS, OUT_OF_RESOURCES = 0x0000, 0xA700
PATIENCE_S = 30.0


@dataclass
class Peer:
    """A storage peer that answers as it is told. ``answer``: of the nth image, its status, or None to break off."""

    answer: Callable[[int], int | None]
    taken: list[tuple[str, str, int]] = field(default_factory=list)  # SOP Instance UID, transfer syntax, priority
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def store(self, event: Any) -> int:
        """One C-STORE."""
        with self.lock:
            self.count += 1
            status = self.answer(self.count)
            if status == SUCCESS:
                request = event.request
                self.taken.append(
                    (str(request.AffectedSOPInstanceUID), str(event.context.transfer_syntax), request.Priority)
                )
        if status is None:
            event.assoc.abort()
            return SUCCESS
        return status


@contextmanager
def listening(peer: Peer) -> Iterator[tuple[str, int]]:
    """The peer behind a DICOM door."""
    ae = AE("PEER")
    ae.add_supported_context(CTImageStorage, [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, peer.store)])
    try:
        yield server.socket.getsockname()[:2]
    finally:
        server.shutdown()


def finished(scanners: Scanners) -> None:
    """All sent, or given up."""
    scanners.start()
    end_s = time.monotonic() + PATIENCE_S
    while not scanners.finished(0.05):
        assert time.monotonic() < end_s, "the scanners do not come to an end"


def run(load: Load, peers: list[Peer], *, insist_s: float = PATIENCE_S) -> Ledger:
    """Sends the load to these peers."""
    ledger = Ledger(heads(load, 1, f"load-{time.monotonic_ns()}"))
    with ExitStack() as stack:
        doors = Doors([stack.enter_context(listening(peer)) for peer in peers], ["http://127.0.0.1:9"] * len(peers))
        finished(Scanners(load, doors, ledger, 1, lambda _: True, insist_s))
    return ledger


def test_what_gets_success_is_in_the_ledger_and_at_the_peer() -> None:
    """Both producers get images, in their own transfer syntaxes, stat studies with priority high."""
    peers = [Peer(lambda _: SUCCESS), Peer(lambda _: SUCCESS)]
    load = Load(studies=6, images=(3, 4), rate=None, stow=0.0, stat=0.5, large=0.3, poison=1)
    ledger = run(load, peers)
    taken = [one for peer in peers for one in peer.taken]
    assert Counter(sop for sop, _, _ in taken) == Counter(o.picture.sop_instance_uid for o in ledger.acknowledged)
    assert all(peer.taken for peer in peers)
    assert {syntax for _, syntax, _ in taken} == {ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless}
    assert {priority for _, _, priority in taken} == {0, 1}
    assert ledger.given_up == ()


def test_an_image_that_is_refused_for_now_is_sent_again_and_acknowledged_once() -> None:
    """One producer answers 0xA700 to everything, the other breaks off every third: in the end all is there."""
    refusing, breaking = Peer(lambda _: OUT_OF_RESOURCES), Peer(lambda nth: None if nth % 3 == 0 else SUCCESS)
    ledger = run(Load(studies=3, images=(3, 4), rate=None, stow=0.0), [refusing, breaking])
    assert not refusing.taken
    assert len(ledger.acknowledged) == sum(len(study.pictures) for study in ledger.studies.values())
    assert ledger.given_up == ()


def test_a_sender_gives_up_in_the_end_and_says_so() -> None:
    """Nobody takes it: nothing is owed, everything is told as given up."""
    peers = [Peer(lambda _: OUT_OF_RESOURCES), Peer(lambda _: None)]
    ledger = run(Load(studies=1, images=(3, 3), rate=None, stow=0.0), peers, insist_s=0.5)
    assert ledger.acknowledged == ()
    assert len(ledger.given_up) == 3


def test_late_images_wait_until_their_study_has_closed() -> None:
    """Not one of them is sent before."""
    peer, asked = Peer(lambda _: SUCCESS), threading.Event()
    load = Load(studies=2, images=(6, 6), rate=None, stow=0.0, order=Order.LATE)
    ledger = Ledger(heads(load, 1, f"late-{time.monotonic_ns()}"))
    at_once: list[int] = []

    def closed(uid: str) -> bool:
        at_once.append(len(ledger.owed().get(uid, ())))
        asked.set()
        return len(at_once) > 4

    with listening(peer) as address:
        finished(Scanners(load, Doors([address], [""]), ledger, 1, closed))
    assert asked.is_set()
    assert max(at_once) < 6
    assert len(ledger.acknowledged) == 12


def test_a_piece_that_is_held_back_comes_after_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its study to close and then for its pause, which whoever waits for the scanners is told."""
    monkeypatch.setattr("chaos.sendings.MINUTES_LATE_S", (2.0, 2.0))
    peer, seed = Peer(lambda _: SUCCESS), 4
    load = Load(studies=3, images=(6, 6), rate=None, stow=0.0, order=Order.LATE)
    ledger = Ledger(heads(load, 1, f"minutes-{time.monotonic_ns()}"))
    with listening(peer) as address:
        scanners = Scanners(load, Doors([address], [""]), ledger, seed, lambda _: True)
        finished(scanners)
    (held_back,) = [one for one in sendings(tuple(ledger.studies.values()), load, 1, seed) if one.pause_s]
    assert scanners.pauses_s == 2.0
    assert [o.picture for o in ledger.acknowledged][-len(held_back.pictures) :] == list(held_back.pictures)
    assert len(ledger.acknowledged) == 18


class Store(BaseHTTPRequestHandler):
    """A STOW-RS server that answers what its class says."""

    status, body = 200, b"{}"

    def do_POST(self) -> None:
        """One transaction."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def store(status: int, body: bytes) -> Iterator[str]:
    """A STOW-RS server with one answer."""
    handler = type("Answering", (Store,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def sequence(*uids: str) -> str:
    """The items of a DICOM JSON sequence."""
    items = ",".join(f'{{"00081155":{{"vr":"UI","Value":["{uid}"]}}}}' for uid in uids)
    return f'{{"vr":"SQ","Value":[{items}]}}'


@pytest.mark.parametrize(
    ("status", "body", "stored"),
    [
        (200, "{{}}", (0, 1, 2)),
        (202, '{{"00081199":{ok}}}', (0, 1)),
        (202, '{{"00081199":{ok},"00081198":{failed}}}', (0,)),
        (409, '{{"00081199":{ok}}}', ()),
        (503, "", ()),
        (202, "half an ans", ()),
    ],
)
def test_only_what_a_stow_answer_says_is_stored_is_acknowledged(
    status: int, body: str, stored: tuple[int, ...]
) -> None:
    """200 speaks for all; 202 for what it references and does not also fail; anything else for nothing."""
    pictures = heads(Load(studies=1, images=(3, 3)), 1, "stow")[0].pictures
    uids = [picture.sop_instance_uid for picture in pictures]
    told = body.format(ok=sequence(*uids[:2]), failed=sequence(uids[1]))
    with store(status, told.encode()) as url:
        assert posted(url, pictures) == [pictures[nth] for nth in stored]


def test_a_server_that_is_away_has_acknowledged_nothing() -> None:
    """Neither a STOW door nor the worklist's list."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        assert posted(url, heads(Load(studies=1, images=(3, 3)), 1, "away")[0].pictures) == []
        with connected(url) as client, pytest.raises(Away):
            read_list(client)
