"""Peers that mean no good: PDUs made by hand, sockets from another address, and a scanner that works meanwhile."""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from tests.test_producer.objects import ct
from tests.test_producer.running import Running
from tests.test_producer.senders import files, storescu

ELSEWHERE = "127.0.0.2"  # all of 127/8 is this machine: hostile peers need not share the scanner's address
CONTEXT_NAME = "1.2.840.10008.3.1.1.1"
VERIFICATION = "1.2.840.10008.1.1"


def connect(address: tuple[str, int], source: str = ELSEWHERE) -> socket.socket:
    """A connection that says nothing."""
    return socket.create_connection(address, timeout=20, source_address=(source, 0))


def pdu(kind: int, body: bytes) -> bytes:
    """PS3.8 9.3.1."""
    return struct.pack(">BBL", kind, 0, len(body)) + body


def item(kind: int, body: bytes) -> bytes:
    """An item of variable length."""
    return struct.pack(">BBH", kind, 0, len(body)) + body


def associate(
    calling: str = "EVIL", extra: bytes = b"", syntax: str = CTImageStorage, transfer: str = ExplicitVRLittleEndian
) -> bytes:
    """An A-ASSOCIATE-RQ for one context, with ID 1; ``extra``: items behind it."""
    fixed = struct.pack(">HH16s16s32x", 1, 0, b"TRIAGE".ljust(16), calling.encode("latin-1").ljust(16))
    context = bytes((1, 0, 0, 0)) + item(0x30, syntax.encode()) + item(0x40, transfer.encode())
    user = item(0x50, item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3.4"))
    return pdu(0x01, fixed + item(0x10, CONTEXT_NAME.encode()) + item(0x20, context) + extra + user)


def pdv(header: int, data: bytes, context: int = 1) -> bytes:
    """One presentation data value (PS3.8 9.3.5.1)."""
    return struct.pack(">LBB", len(data) + 2, context, header) + data


def element(tag: int, value: bytes) -> bytes:
    """An element of a command set (PS3.7 6.3.1)."""
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value


def command(field_value: int, **more: bytes) -> bytes:
    """A command set with that Command Field and a data set to follow unless ``data_set`` says otherwise."""
    kind = more.get("data_set", b"\x01\x00")
    uid = more.get("sop_class", VERIFICATION.encode() + b"\0")
    parts = (
        element(0x00000002, uid),
        element(0x00000100, struct.pack("<H", field_value)),
        element(0x00000110, b"\x01\0"),
        element(0x00000800, kind),
    )
    return b"".join(parts)


def answered(peer: socket.socket) -> int:
    """The type of the next PDU; 0 where the connection has ended."""
    try:
        head = peer.recv(6, socket.MSG_WAITALL)
        if len(head) < 6:
            return 0
        peer.recv(struct.unpack(">BBL", head)[2], socket.MSG_WAITALL)
    except ConnectionError:
        return 0
    return head[0]


def associated(address: tuple[str, int], calling: str = "EVIL", source: str = ELSEWHERE) -> socket.socket:
    """A connection whose association was accepted."""
    peer = connect(address, source)
    peer.sendall(associate(calling))
    assert answered(peer) == 0x02
    return peer


def ended(peer: socket.socket, patience_s: float = 20.0) -> bool:
    """Whether the other side hangs up in time; what it says before is read and forgotten."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if not select.select([peer], [], [], max(0.0, end - time.monotonic()))[0]:
            return False
        try:
            if not peer.recv(65536):
                return True
        except ConnectionError:
            return True
    return False


@dataclass
class Scanner:
    """A well-behaved sender: what storescu told of each round."""

    rounds: list[tuple[int, str]] = field(default_factory=list)

    def content(self) -> bool:
        """Whether every image of every round got Success."""
        return bool(self.rounds) and all(code == 0 and told.count("Success") == 2 for code, told in self.rounds)


@contextmanager
def scanner(producer: Running, folder: Path) -> Iterator[Scanner]:
    """Storescu sends two images again and again while the body runs, at least twice in all; it must please it."""
    folder.mkdir(exist_ok=True)
    paths = files(folder, [ct(), ct()])
    sender, stop = Scanner(), threading.Event()

    def run() -> None:
        while not stop.is_set() or len(sender.rounds) < 2:
            process = storescu(producer.dicom, paths, "-v", "-aet", "CT1")
            told = process.communicate(timeout=60)[0]
            sender.rounds.append((process.returncode, told))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield sender
    finally:
        stop.set()
        thread.join(90)
    assert sender.content(), sender.rounds[-1]
