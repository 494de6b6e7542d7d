"""Crowds at the worklist's door: silent ones, greedy ones, and readers who only listen."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest

from contracts.hooks import Happening
from contracts.worklist import NOTICE, Change
from launch.stack.redis_server import RedisServer
from tests.test_worklist.conftest import Served, serving, settings_for, until
from tests.test_worklist.test_serve import Listener, Recorder
from tests.test_worklist.view_writer import Writer, item

ELSEWHERE = "127.0.0.2"  # all of 127/8 is this machine
EVENTS = b"GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@contextmanager
def peer_of(served: Served, source: str) -> Iterator[socket.socket]:
    """A connection that says nothing yet."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30, source_address=(source, 0)) as peer:
        yield peer


def hangs_up(peer: socket.socket) -> bool:
    """Whether the service ends the connection while we wait."""
    with suppress(ConnectionError):
        while peer.recv(65536):
            pass
    return True


@pytest.mark.parametrize("source", ["127.0.0.1", ELSEWHERE])
@pytest.mark.parametrize("said", [b"", b"GET /v1/work"], ids=["silent", "half a head"])
def test_forty_silent_sockets_lock_no_reader_out(
    redis_server: RedisServer, prefix: str, writer: Writer, source: str, said: bytes
) -> None:
    """A reader is answered, and one who only listens stays far beyond the time that a silent one has."""
    writer.ready()
    writer.put(item("1.1"))
    limits = {"unasked_connections": 20, "http_head_s": 2.0}
    with serving(settings_for(redis_server.url, prefix, limits)) as served, ExitStack() as stack:
        listener = Listener(served)
        silent = [stack.enter_context(peer_of(served, source)) for _ in range(40)]
        for peer in silent:
            with suppress(ConnectionError):
                peer.sendall(said)
        assert served.get("/v1/worklist").json()["total"] == 1
        assert all(hangs_up(peer) for peer in silent)
        time.sleep(1.0)  # with the above, longer than any silent one was let stay
        writer.put(item("1.2"), Change.RECEIVED)
        until("the listener hears", lambda: ("received", "1.2") in listener.told)
        assert not listener.ended.is_set()


def test_a_greedy_listener_leaves_room_for_readers(redis_server: RedisServer, prefix: str, writer: Writer) -> None:
    """Its address has its share of requests; the next is 503 in the shape of every problem, and others are served."""
    writer.ready()
    hooks = Recorder()
    settings = settings_for(redis_server.url, prefix, requests=10, requests_per_address=4)
    with serving(settings, hooks) as served, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(peer_of(served, ELSEWHERE)).sendall(EVENTS)
        until("they listen", lambda: hooks.last(Happening.LIVE_READERS) == 4)
        transport = httpx.HTTPTransport(local_address=ELSEWHERE)
        with httpx.Client(transport=transport, timeout=30) as greedy:
            answer = greedy.get(served.url + "/v1/worklist")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert (answer.json()["status"], answer.json()["notice"]) == ("degraded", NOTICE)
        assert served.get("/v1/worklist").status_code == 200
    refused = [labels for what, _, labels in hooks.told if what is Happening.REFUSED]
    assert refused == [{"door": "worklist", "reason": "too_many"}]


def test_live_readers_have_a_limit_of_their_own(redis_server: RedisServer, prefix: str, writer: Writer) -> None:
    """One more than the setting allows is 503; the list is served all the same."""
    writer.ready()
    with serving(settings_for(redis_server.url, prefix, live_readers=2)) as served:
        listeners = [Listener(served) for _ in range(2)]
        assert served.get("/v1/events").status_code == 503
        assert served.get("/v1/worklist").status_code == 200
        assert not any(listener.ended.is_set() for listener in listeners)


def test_a_large_body_is_not_waited_for(redis_server: RedisServer, prefix: str) -> None:
    """413 by its announcement, with the notice, and the connection ends."""
    with serving(settings_for(redis_server.url, prefix)) as served, peer_of(served, ELSEWHERE) as peer:
        peer.sendall(b"POST /v1/worklist HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n")
        told = b""
        while piece := peer.recv(65536):
            told += piece
        assert told.startswith(b"HTTP/1.1 413")
        assert NOTICE.encode() in told
