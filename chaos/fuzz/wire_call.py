"""One input on a real socket: sent whole, half closed, and the peer has so long to come to an end."""

import select
import socket
import time
from dataclasses import dataclass

READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Exchange:
    """What came back, and whether the peer came to an end in time."""

    answer: bytes
    ended: bool
    refused: bool = False  # nobody listened


def exchanged(address: tuple[str, int], data: bytes, limit_s: float, patience_s: float = 0.0) -> Exchange:
    """Sends, and reads to the end of the connection or of an HTTP answer.

    ``patience_s``: so long may the peer be silent before we close our half. Then it has ``limit_s`` to close its own.
    """
    try:
        connection = socket.create_connection(address, timeout=limit_s)
    except OSError as problem:
        return Exchange(b"", ended=not isinstance(problem, TimeoutError), refused=True)
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not _sent(connection, data):
            return Exchange(*_read(connection, limit_s))
        answer, ended = _read(connection, patience_s, quiet=True) if patience_s else (b"", False)
        if ended:
            return Exchange(answer, ended=True)
        _close_half(connection)
        rest, ended = _read(connection, limit_s)
        return Exchange(answer + rest, ended)


def _sent(connection: socket.socket, data: bytes) -> bool:
    """False where the peer did not want all of it: it may well have hung up in the middle."""
    try:
        connection.sendall(data)
    except OSError:
        return False
    return True


def _close_half(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_WR)
    except OSError:  # it is gone altogether
        return


def _read(connection: socket.socket, limit_s: float, *, quiet: bool = False) -> tuple[bytes, bool]:
    """What comes within the limit, and whether that was all. ``quiet``: the limit is of silence, not of all."""
    read, until_s = bytearray(), time.monotonic() + limit_s
    while True:
        left_s = until_s - time.monotonic()
        if left_s <= 0 or not select.select([connection], [], [], left_s)[0]:
            return bytes(read), False
        try:
            piece = connection.recv(READ_BYTES)
        except OSError:  # reset: an end too
            return bytes(read), True
        read += piece
        if not piece or _whole(read):
            return bytes(read), True
        until_s = time.monotonic() + limit_s if quiet else until_s


def _whole(answer: bytearray) -> bool:
    """Whether an HTTP answer is complete, or endless by its nature."""
    head, _, _body = bytes(answer[:65536]).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.") or len(answer) == len(head):
        return False
    lines = head.lower().split(b"\r\n")
    if any(line.startswith(b"content-type: text/event-stream") for line in lines):
        return True
    length = next((line[16:] for line in lines if line.startswith(b"content-length: ")), b"")
    return length.isdigit() and len(answer) - len(head) - 4 >= int(length)


def status_of(answer: bytes) -> int | None:
    """Of an HTTP answer; None where it is none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1][:3].isdigit() else None
