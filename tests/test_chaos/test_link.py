"""The fault proxy does to real connections what it says, and nothing else."""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import CTImageStorage

from chaos.link_call import TcpLink
from chaos.phantoms import heads
from chaos.scenario import Load
from tests.servers.processes import becomes_true
from tests.test_producer.senders import storescu

LIMIT_S = 20.0
SILENCE_S = 0.3  # an answer that is not there by then was swallowed


class Server(socketserver.ThreadingTCPServer):
    """Echoes what it gets, or only keeps it."""

    daemon_threads = True

    def __init__(self, *, echo: bool) -> None:
        self.echo, self.got, self.endings = echo, bytearray(), list[str]()
        super().__init__(("127.0.0.1", 0), Talk)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self.socket.getsockname()
        return str(host), int(port)


class Talk(socketserver.BaseRequestHandler):
    """One connection of it."""

    server: Server

    def handle(self) -> None:
        """Until its end, which is remembered."""
        try:
            while piece := self.request.recv(4096):
                self.server.got += piece
                if self.server.echo:
                    self.request.sendall(piece)
            self.server.endings.append("closed")
        except OSError as ending:
            self.server.endings.append(type(ending).__name__)


@pytest.fixture(params=[True])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Echoes; with a parameter of False it only listens."""
    with Server(echo=request.param) as running:
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture
def link(server: Server) -> Iterator[TcpLink]:
    """To the server."""
    with TcpLink(server.address) as between:
        yield between


def caller(link: TcpLink) -> socket.socket:
    """A connection through the link."""
    return socket.create_connection(link.address, timeout=LIMIT_S)


def said_back(connection: socket.socket, size_bytes: int) -> bytes:
    """That many bytes, fewer where the connection ended."""
    got = bytearray()
    while len(got) < size_bytes and (piece := connection.recv(65536)):
        got += piece
    return bytes(got)


def is_reset(connection: socket.socket) -> bool:
    """Whether it ends with RST, not with FIN."""
    try:
        while connection.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False


def test_a_sound_link_passes_everything_both_ways_and_the_end_of_it(link: TcpLink, server: Server) -> None:
    """A megabyte comes back as it went, and a closed half is seen as closed."""
    sent = bytes(range(256)) * 4096

    def send() -> None:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)

    with caller(link) as connection:
        threading.Thread(target=send).start()
        assert said_back(connection, len(sent)) == sent
        assert connection.recv(1) == b""
    assert becomes_true(lambda: server.endings == ["closed"])


@pytest.mark.parametrize("server", [False], indirect=True, ids=["silent server"])
@pytest.mark.parametrize("present", [True, False], ids=["present connection", "new connection"])
def test_reset_after_lets_exactly_that_many_bytes_through(link: TcpLink, server: Server, present: bool) -> None:  # noqa: FBT001  # a parameter of the test
    """The server reads the part before the reset, then the reset; the sender gets the reset, too."""
    early = caller(link) if present else None
    if early:
        early.sendall(b"before")
        assert becomes_true(lambda: server.got == b"before")
    link.reset_after(1000)
    with early or caller(link) as connection:
        connection.sendall(bytes(700))
        connection.sendall(bytes(700))
        assert is_reset(connection)
    assert becomes_true(lambda: server.endings == ["ConnectionResetError"])
    assert len(server.got) == 1000 + (len(b"before") if present else 0)


def test_delay_holds_every_piece_back_both_ways_and_keeps_the_order(link: TcpLink) -> None:
    """Four pieces sent at once come back in order, not before both delays have passed."""
    link.delay(0.2)
    with caller(link) as connection:
        began_s = time.monotonic()
        for piece in (b"a", b"b", b"c", b"d"):
            connection.sendall(piece)
        assert said_back(connection, 4) == b"abcd"
        assert time.monotonic() - began_s >= 0.4


def test_one_way_hears_the_caller_and_never_answers_until_it_is_healed(link: TcpLink, server: Server) -> None:
    """What is said arrives, the answer does not; healing resets the deceived connection and a new one works."""
    with caller(link) as connection:
        connection.sendall(b"before")
        assert said_back(connection, 6) == b"before"
        link.one_way()
        connection.sendall(b"during")
        assert becomes_true(lambda: server.got == b"beforeduring")
        connection.settimeout(SILENCE_S)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(LIMIT_S)
        link.heal()
        assert is_reset(connection)
    with caller(link) as connection:
        connection.sendall(b"after")
        assert said_back(connection, 5) == b"after"


def test_cut_resets_and_refuses_and_heals_at_the_same_address(link: TcpLink) -> None:
    """Present connections get RST, new ones are refused; after healing the address works again."""
    with caller(link) as connection:
        connection.sendall(b"x")
        assert said_back(connection, 1) == b"x"
        link.cut()
        assert is_reset(connection)
    with pytest.raises(ConnectionRefusedError):
        caller(link)
    link.heal()
    with caller(link) as connection:
        connection.sendall(b"x")
        assert said_back(connection, 1) == b"x"


def test_a_target_that_is_away_resets_the_caller_and_one_that_moved_is_found(link: TcpLink, server: Server) -> None:
    """A dead server behind the link is no silent one; the link may be pointed elsewhere while it lives."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: refused
        link.target = nobody.getsockname()
        with caller(link) as connection:
            assert is_reset(connection)
    link.target = server.address
    with caller(link) as connection:
        connection.sendall(b"x")
        assert said_back(connection, 1) == b"x"


def test_a_closed_link_lets_nobody_in_and_leaves_no_thread(server: Server) -> None:
    """Its connections are reset, its port refuses, its thread has ended."""
    link = TcpLink(server.address)
    with caller(link) as connection:
        connection.sendall(b"x")
        assert said_back(connection, 1) == b"x"
        link.close()
        assert is_reset(connection)
    with pytest.raises(ConnectionRefusedError):
        caller(link)
    assert not link._thread.is_alive()


def test_storescu_is_cut_off_amid_a_pdu_and_its_image_arrives_after_healing(tmp_path: Path) -> None:
    """A real scanner's image of 131 kB does not arrive through 60 kB; the same scanner succeeds on the healed link."""
    stored: list[str] = []
    aborted = threading.Event()

    def keep(event: Any) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0

    entity = AE()
    entity.add_supported_context(CTImageStorage)
    handlers = [(evt.EVT_C_STORE, keep), (evt.EVT_CONN_CLOSE, lambda _: aborted.set())]
    peer = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    (image,) = heads(Load(studies=1, images=(1, 1), large=1.0), 1, "link")[0].pictures
    file = tmp_path / "image.dcm"
    file.write_bytes(image.part10)
    try:
        with TcpLink(peer.socket.getsockname()) as link:
            link.reset_after(60_000)
            assert storescu(link.address, [file]).wait(LIMIT_S) != 0
            assert aborted.wait(LIMIT_S)
            assert stored == []
            link.heal()
            assert storescu(link.address, [file]).wait(LIMIT_S) == 0
    finally:
        peer.shutdown()
    assert stored == [image.sop_instance_uid]
