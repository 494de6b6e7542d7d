"""The probes and the worklist behind the entrance: silent, slow, greedy and large callers, over real sockets."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import StringIO
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from contracts.hooks import Happening, Silent
from contracts.settings import LimitSettings
from launch.http_entrance_in import HttpEntrance
from launch.log_out import JsonLog
from launch.observe_out import Observer
from launch.probes_out import Probes

ELSEWHERE = "127.0.0.2"  # all of 127/8 is this machine: hostile callers need not share an honest one's address
HONEST_S = 10.0  # a probe of Kubernetes gives up sooner or later; the machine may be busy
SOON_S = 30.0


def until(what: str, true: Any) -> None:
    """Polls until it is true; fails with ``what``."""
    end = time.monotonic() + SOON_S
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.05)
    raise AssertionError(what)


def connect(address: str, source: str = ELSEWHERE) -> socket.socket:
    """A connection that says nothing."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=SOON_S, source_address=(source, 0))


def answer_of(peer: socket.socket) -> bytes:
    """All it is told until the end."""
    told = b""
    with suppress(ConnectionError):
        while piece := peer.recv(65536):
            told += piece
    return told


class Told(Silent):
    """Hooks that remember what was refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Remembers."""
        del value, traceparent
        if happening is Happening.REFUSED:
            self.refused.append(f"{labels['door']}: {labels['reason']}")


@contextmanager
def probes(**limits: Any) -> Iterator[str]:
    """The probe server of a process without services; its address."""
    running = Probes([], Observer(JsonLog("test", "INFO", StringIO())), "127.0.0.1", 0, LimitSettings(**limits))
    running.start()
    try:
        yield running.address
    finally:
        running.stop()


@contextmanager
def telling(hooks: Told, answer: Any, **limits: Any) -> Iterator[str]:
    """A listener behind an entrance for two at once, one of an address; its address."""
    entrance = HttpEntrance(LimitSettings(**limits), hooks, "test", requests=2, per_address=1)

    async def asked(request: Request) -> Response:
        if refusal := entrance.refusal(request.scope):
            return PlainTextResponse(refusal.detail, refusal.code, dict(refusal.headers))
        told: Response = await answer(request)
        return told

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(entrance.config(Starlette(routes=[Route("/", asked, methods=["GET", "POST"])])))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        until("it answers", lambda: server.started)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(SOON_S)


@pytest.mark.parametrize(
    "said", [b"", b"GET /li", b"GET /live HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "some", "head"]
)
@pytest.mark.parametrize("source", ["127.0.0.1", ELSEWHERE])
def test_forty_silent_sockets_do_not_lock_the_probe_out(said: bytes, source: str) -> None:
    """Nor do they from the probe's own address: it is answered at once, and they are ended when their time is over."""
    with probes(unasked_connections=20, http_head_s=2.0) as address, ExitStack() as stack:
        silent = [stack.enter_context(connect(address, source)) for _ in range(40)]
        for peer in silent:
            with suppress(ConnectionError):
                peer.sendall(said)
        for path in ("/live", "/ready", "/metrics"):
            assert httpx.get(f"http://{address}{path}", timeout=HONEST_S, trust_env=False).status_code == 200
        assert {answer_of(peer) for peer in silent} == {b""}


def test_a_kept_alive_connection_that_falls_idle_is_closed() -> None:
    """It was answered, and says nothing more: closed in good form."""
    with probes(http_head_s=1.0) as address, connect(address) as peer:
        peer.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer_of(peer).endswith(b'{"live":true}')


def test_a_head_without_end_is_refused() -> None:
    """Request line and headers have a size."""
    with probes(http_head_bytes=4096) as address, connect(address) as peer:
        with suppress(ConnectionError):
            peer.sendall(b"GET /live HTTP/1.1\r\nX: " + b"y" * 1_000_000)
        assert b" 200 " not in answer_of(peer)
        assert httpx.get(f"http://{address}/live", timeout=HONEST_S, trust_env=False).status_code == 200


@pytest.mark.parametrize(
    ("said", "status"),
    [(b"Content-Length: 70000", b"413"), (b"Transfer-Encoding: chunked", b"411"), (b"Content-Length: 3", b"200")],
    ids=["too large", "no length", "small"],
)
def test_a_body_is_refused_by_its_announcement(said: bytes, status: bytes) -> None:
    """Nothing of it is waited for, and the connection ends; a small one harms nobody."""
    with probes(http_head_s=1.0) as address, connect(address) as peer:
        peer.sendall(b"GET /live HTTP/1.1\r\nHost: x\r\n" + said + b"\r\n\r\n")
        assert answer_of(peer).startswith(b"HTTP/1.1 " + status)


def test_one_address_has_its_share_and_all_have_a_limit() -> None:
    """The second request of an address is 503 with Retry-After, another address is let in, a third is one too many."""
    release, inside = threading.Event(), []

    async def waits(request: Request) -> Response:
        inside.append(request.client)
        await asyncio.to_thread(release.wait, SOON_S)
        return PlainTextResponse("done")

    hooks, ask = Told(), b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with telling(hooks, waits) as address, ExitStack() as stack:
        asked = []
        for source in ("127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.4"):
            asked.append(stack.enter_context(connect(address, source)))
            asked[-1].sendall(ask)
            until("it is inside or refused", lambda: len(inside) + len(hooks.refused) == len(asked))
        for refused in (asked[1], asked[3]):
            told = answer_of(refused)
            assert told.startswith(b"HTTP/1.1 503")
            assert b"retry-after: 5" in told.lower()
        assert hooks.refused == ["test: too_many"] * 2
        release.set()
        assert all(answer_of(one).endswith(b"done") for one in (asked[0], asked[2]))


@pytest.mark.parametrize("size_bytes", [40_000, 20_000_000], ids=["below every buffer's mark", "large"])
def test_an_answer_that_nobody_takes_is_ended(size_bytes: int) -> None:
    """The caller reads nothing: when the time is over its connection is cut, and its place is free again."""

    async def large(_: Request) -> Response:
        return Response(b"x" * size_bytes)

    hooks = Told()
    with telling(hooks, large, http_answer_s=1.0, http_head_s=600.0) as address, socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.bind(("127.0.0.2", 0))
        host, _, port = address.rpartition(":")
        peer.connect((host, int(port)))
        asks = 1 if size_bytes > 10_000_000 else 200  # until the kernel's own buffers are full
        with suppress(ConnectionError):
            for _ in range(asks):
                peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until("it is cut", lambda: hooks.refused)
        assert hooks.refused == ["test: too_slow"]
        with connect(address, "127.0.0.2") as again:
            again.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert answer_of(again).startswith(b"HTTP/1.1 200")


def test_an_answer_that_is_taken_slowly_is_whole() -> None:
    """Longer than the limit in all, but it goes on: nothing is cut."""

    async def pieces(_: Request) -> Response:
        async def made() -> Any:
            for _ in range(40):
                yield b"x" * 50_000

        return StreamingResponse(made())

    hooks = Told()
    with telling(hooks, pieces, http_answer_s=2.0) as address, connect(address) as peer:
        peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        taken = 0
        while piece := peer.recv(40_000):
            taken += len(piece)
            time.sleep(0.08)
        assert taken > 40 * 50_000
        assert hooks.refused == []
