"""The DICOM door against hostile peers, while a well-behaved scanner keeps sending and gets Success for all."""

import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian
from pynetdicom.sop_class import Verification

from contracts.hooks import Happening
from tests.test_producer.conftest import Start
from tests.test_producer.hostile import (
    VERIFICATION,
    answered,
    associate,
    associated,
    command,
    connect,
    element,
    ended,
    item,
    pdu,
    pdv,
    scanner,
)
from tests.test_producer.objects import bomb, ct, files_below, part10
from tests.test_producer.running import Running, wait_until, written
from tests.test_producer.senders import association, status_of, store, unchanged

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

CT = (CTImageStorage, ExplicitVRLittleEndian)
SUCCESS, CANNOT_UNDERSTAND = 0x0000, 0xC000
ACCEPTED, REJECTED = 0x02, 0x03
PDU_TYPES = range(1, 8)


def refused(producer: Running, reason: str) -> int:
    """How often that was told."""
    told = producer.hooks.labels_of(Happening.REFUSED)
    return told.count({"door": "dicom", "reason": reason})


def nobody_inside(producer: Running) -> bool:
    """Whether every connection, and every byte it held, is forgotten."""
    door = producer.door("dicom")
    return not (door._places.waiting() or door._places.busy or door._associations() or door._budget.held_bytes)


@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_silent_sockets_lock_nobody_out(start: Start, tansu: str, tmp_path: Path, source: str) -> None:
    """Many more than there are associations, also from the scanner's own address: it is served all the while."""
    limits = {"unasked_connections": 16, "first_pdu_s": 2.0}
    with start(tansu, max_associations=3, limits=limits) as producer, ExitStack() as stack:
        silent = [stack.enter_context(connect(producer.dicom, source)) for _ in range(40)]
        with scanner(producer, tmp_path / "scanner"):
            assert all(ended(peer) for peer in silent)
        wait_until(lambda: nobody_inside(producer), 20)
        assert refused(producer, "too_many") >= 24
        assert refused(producer, "too_slow") >= 10


@pytest.mark.parametrize(
    "said",
    [
        b"\x01\x00\xff\xff\xff\xff",
        b"\x04\x00\xff\xff\xff\xff",
        b"\x05\x00\x00\x10\x00\x00",
        b"\x07\x00\xff\xff\xff\xff" + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n" * 10,
        pdu(0x01, b""),
        associate(extra=b"".join(item(0x21, b"") for _ in range(9000))),
        associate(extra=item(0x20, b"\x03\0\0\0" + item(0x40, b"") * 9000)),
        associate(extra=item(0x20, bytes(60_000)) * 5),
        pdu(0x01, associate()[6:] + b"\x50"),
    ],
    ids=[
        "4 GiB request",
        "4 GiB of data",
        "1 MiB release",
        "4 GiB abort",
        "http",
        "empty request",
        "items without end",
        "transfer syntaxes without end",
        "300 kB request",
        "items that do not fit",
    ],
)
def test_a_first_pdu_that_is_none_is_hung_up_on(start: Start, tansu: str, said: bytes) -> None:
    """No association, no bytes held, the place left; counted, unless it is no PDU at all."""
    with start(tansu) as producer, connect(producer.dicom) as peer:
        with suppress(ConnectionError):  # it may hang up while we still speak
            peer.sendall(said)
        assert ended(peer)
        wait_until(lambda: nobody_inside(producer), 20)
        assert refused(producer, "protocol") == (said[0] in PDU_TYPES)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (pdu(0x04, b"".join(pdv(0x01, b"") for _ in range(300))), "protocol"),
        (pdu(0x04, b"\0\0\0\1\1"), "protocol"),
        (pdu(0x04, b"\xff\xff\xff\xff\1\0"), "protocol"),
        (pdu(0x04, bytes(2 * 1024 * 1024)), "protocol"),
        (b"".join(pdu(0x04, pdv(0x01, bytes(16_000))) for _ in range(5)), "protocol"),
        (pdu(0x04, pdv(0x03, command(0x0100))), "protocol"),
        (pdu(0x04, pdv(0x03, b"\x08\x00\x40\x11\xff\xff\xff\xff" * 500)), "protocol"),
        (pdu(0x04, pdv(0x03, element(0x00000100, b"\1\0") * 100)), "protocol"),
        (pdu(0x04, pdv(0x03, command(0x0030, data_set=b"\1\1"))) * 2000, "protocol"),
    ],
    ids=[
        "fragments without end in a PDU",
        "fragment without header",
        "fragment of 4 GiB",
        "PDU of 2 MiB",
        "command set without end",
        "event report",
        "nested command set",
        "elements without end",
        "requests without waiting",
    ],
)
def test_what_an_association_may_not_send_ends_it(start: Start, tansu: str, said: bytes, reason: str) -> None:
    """Counted by reason; nothing stays behind."""
    limits = {"messages_waiting": 4}
    with start(tansu, limits=limits) as producer, associated(producer.dicom) as peer:
        with suppress(ConnectionError):
            peer.sendall(said)
        assert ended(peer)
        assert refused(producer, reason) >= 1
        wait_until(lambda: nobody_inside(producer), 20)


def test_fragments_without_bytes_end_with_their_number(start: Start, tansu: str) -> None:
    """A message that grows in number and not in size."""
    empty = pdu(0x04, pdv(0x03, command(0x0001)) + pdv(0x00, b"") * 100)
    with start(tansu, limits={"message_fragments": 50}) as producer, associated(producer.dicom) as peer:
        peer.sendall(empty)
        assert ended(peer)
        assert refused(producer, "protocol") == 1


@pytest.mark.parametrize("asked", [False, True])
def test_a_pdu_that_trickles_has_its_time(start: Start, tansu: str, tmp_path: Path, *, asked: bool) -> None:
    """Byte by byte, before and after the association: over in its time, whatever keeps coming."""
    limits = {"first_pdu_s": 2.0, "pdu_s": 2.0}
    with start(tansu, limits=limits) as producer, scanner(producer, tmp_path / "scanner"):
        with associated(producer.dicom) if asked else connect(producer.dicom) as peer:
            peer.settimeout(20)
            drip = pdu(0x04, bytes(10_000)) if asked else associate()
            try:
                for at in range(len(drip)):
                    peer.sendall(drip[at : at + 1])
                    time.sleep(0.1)
            except ConnectionError:
                pass
            assert at < 120
        wait_until(lambda: refused(producer, "too_slow") == 1, 20)


def test_a_message_that_trickles_in_whole_pdus_is_ended_by_its_rate(start: Start, tansu: str) -> None:
    """No PDU is late, and the message never ends."""
    limits = {"slow_grace_s": 1.0, "slow_bytes_per_s": 1000}
    with start(tansu, limits=limits) as producer, associated(producer.dicom) as peer:
        peer.sendall(pdu(0x04, pdv(0x03, command(0x0001))))
        try:
            for _ in range(100):
                peer.sendall(pdu(0x04, pdv(0x00, b"x" * 10)))
                time.sleep(0.1)
        except ConnectionError:
            pass
        assert refused(producer, "too_slow") == 1


def test_one_greedy_peer_leaves_room(start: Start, tansu: str, tmp_path: Path) -> None:
    """By its address and by its title: it is told to come later, and the scanner is served."""
    limits = {"associations_per_address": 6, "associations_per_title": 4}
    with start(tansu, max_associations=8, limits=limits) as producer, ExitStack() as stack:

        def ask(title: str) -> int:
            peer = stack.enter_context(connect(producer.dicom))
            peer.sendall(associate(title))
            return answered(peer)

        assert [ask("GREEDY") for _ in range(6)] == [ACCEPTED] * 4 + [REJECTED] * 2
        assert [ask(f"OTHER{n}") for n in range(4)] == [ACCEPTED] * 2 + [REJECTED] * 2
        assert refused(producer, "too_many") == 4
        with scanner(producer, tmp_path / "scanner"):
            pass


def test_objects_that_never_end_leave_memory_for_others(start: Start, tansu: str) -> None:
    """One address takes what it can get, and keeps it: another sender's image is stored all the same."""
    mib, size_bytes, piece_bytes = 1024**2, 1_040_000, 16_000  # four of them and an image are more than 4 MiB
    limits = {"memory_bytes": 4 * mib, "inflated_bytes": 4 * mib}
    store_of_ct = command(0x0001, sop_class=CTImageStorage.encode() + b"\0") + element(0x00001000, b"1.2.3\0")
    image = ct(Rows=256, Columns=256, PixelData=bytes(131_072))
    with start(tansu, limits=limits, payload={"inline_limit_bytes": mib}) as producer, ExitStack() as stack:
        for _ in range(4):
            peer = stack.enter_context(associated(producer.dicom))
            peer.sendall(pdu(0x04, pdv(0x03, store_of_ct)))
            for _ in range(size_bytes // piece_bytes):
                peer.sendall(pdu(0x04, pdv(0x00, bytes(piece_bytes))))
        wait_until(lambda: producer.door("dicom")._budget.held_bytes == 3 * size_bytes, 20)
        assert store(producer.dicom, part10(image)) == SUCCESS


def test_a_store_whose_file_meta_cannot_be_written_keeps_nothing(start: Start, tansu: str) -> None:
    """Bytes that nobody gives back would shut the door in the end, one message after the other."""
    nameless = command(0x0001, sop_class=CTImageStorage.encode() + b"\0")
    with start(tansu) as producer, associated(producer.dicom) as peer:
        peer.sendall(pdu(0x04, pdv(0x03, nameless) + pdv(0x00, bytes(16_000))) + pdu(0x04, pdv(0x00, bytes(16_000))))
        messages = producer.door("dicom")._associations()[0].dimse
        wait_until(lambda: messages._growing_bytes > 32_000, 20)
        assert producer.door("dicom")._budget.held_bytes == 0


def test_a_title_forged_elsewhere_takes_nothing_from_its_owner(start: Start, tansu: str) -> None:
    """Titles are counted at one address: whoever calls himself CT1 cannot lock out CT1."""
    with start(tansu, limits={"associations_per_title": 2}) as producer, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(associated(producer.dicom, "CT1"))
        assert store(producer.dicom, part10(ct()), priority=2) == SUCCESS
        with association(producer.dicom, CT, calling="CT1") as peer:
            assert peer.is_established


def test_a_deflate_bomb_is_refused_and_gives_its_memory_back(start: Start, tansu: str, tmp_path: Path) -> None:
    """1 MB that would be 1 GiB: 0xC000, nothing written, no byte of the budget lost."""
    context = (CTImageStorage, DeflatedExplicitVRLittleEndian)
    with start(tansu) as producer, unchanged(tmp_path) as send, scanner(producer, tmp_path / "scanner"):
        with association(producer.dicom, context) as peer:
            assert send(peer, bomb()) == CANNOT_UNDERSTAND
            good = ct()
            assert send(peer, part10(good, DeflatedExplicitVRLittleEndian)) == SUCCESS
        assert refused(producer, "too_large") == 1
        assert producer.door("dicom")._budget.held_bytes < 100_000


@pytest.mark.parametrize("title", ["../../etc", "/abs/olute", "....//..", "~root", "CON"])
def test_titles_never_become_paths(start: Start, tansu: str, tmp_path: Path, title: str) -> None:
    """A calling title with slashes is a header's value; what lies in the store is named by its digest."""
    url = (tmp_path / "store").as_uri()
    payload = {"url": url, "inline_limit_bytes": 1000, "min_free_bytes": 0}
    with start(tansu, payload=payload) as producer:
        with association(producer.dicom, CT, calling=title) as peer:
            assert status_of(peer, part10(ct())) == SUCCESS
        (scan,) = written(producer.settings, 1).scans
    assert scan.headers.source == title
    stored = files_below(tmp_path)
    assert [path.relative_to(tmp_path / "store").as_posix() for path in stored] == [scan.headers.claim[len(url) + 1 :]]
    assert set(stored[0].name) <= set("0123456789abcdef")


def test_a_store_without_a_data_set_or_of_another_context_is_refused(start: Start, tansu: str) -> None:
    """0xC000 or the end of the association, and never an image."""
    with start(tansu) as producer:
        with associated(producer.dicom) as peer:
            peer.sendall(
                pdu(0x04, pdv(0x03, command(0x0001, data_set=b"\1\1", sop_class=CTImageStorage.encode() + b"\0")))
            )
            assert ended(peer)
        with associated(producer.dicom) as peer:
            peer.sendall(pdu(0x04, pdv(0x03, command(0x0001), 7) + pdv(0x02, b"data", 7)))
            assert ended(peer)
        wait_until(lambda: nobody_inside(producer), 20)
        assert written(producer.settings, 0, patience_s=1).scans == []


def test_echo_is_answered_while_others_are_refused(start: Start, tansu: str) -> None:
    """The limits touch nobody who keeps to the protocol."""
    assert Verification == VERIFICATION
    with start(tansu) as producer, association(producer.dicom, (Verification, ExplicitVRLittleEndian)) as peer:
        assert [peer.send_c_echo().Status for _ in range(30)] == [SUCCESS] * 30
        with socket.create_connection(producer.dicom) as junk:
            junk.sendall(b"\xff" * 100)
            assert ended(junk)
        assert peer.send_c_echo().Status == SUCCESS
