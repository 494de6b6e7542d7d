"""The STOW door against silent, slow, greedy and hostile clients, while honest ones are served."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx
import pytest

from contracts.hooks import Happening
from tests.test_producer.conftest import Start
from tests.test_producer.hostile import connect, ended
from tests.test_producer.objects import bomb, ct, part10
from tests.test_producer.running import Running, wait_until
from tests.test_producer.test_multipart import body
from tests.test_producer.test_stow import MULTIPART, OTHER, REASON, post, values

pytestmark = [pytest.mark.stack]


def where(producer: Running) -> tuple[str, int]:
    """The STOW listener."""
    host, _, port = producer.stow.removeprefix("http://").rpartition(":")
    return host, int(port)


def head(length: int = 10_000_000) -> bytes:
    """The head of a store request whose body is still to come."""
    lines = ("POST /studies HTTP/1.1", "Host: x", f"Content-Type: {MULTIPART}", f"Content-Length: {length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def refused(producer: Running, reason: str) -> int:
    """How often that was told."""
    return producer.hooks.labels_of(Happening.REFUSED).count({"door": "stow", "reason": reason})


def served(producer: Running) -> bool:
    """Whether an honest client's instance is stored."""
    return post(producer, [part10(ct())]).status_code == 200


def nobody_inside(producer: Running) -> bool:
    """Whether every connection, and every byte it held, is forgotten."""
    door: Any = producer.door("stow")
    return not (door._places.waiting() or door._places.busy or door._budget.held_bytes)


@pytest.mark.parametrize("said", [b"", head(), b"POST /stud"], ids=["sockets", "bodies", "heads"])
@pytest.mark.parametrize("source", ["127.0.0.1", "127.0.0.2"])
def test_silent_clients_lock_nobody_out(start: Start, tansu: str, said: bytes, source: str) -> None:
    """A hundred of them, also from the honest client's own address: it is served, and they are ended."""
    limits = {"unasked_connections": 20, "http_head_s": 6.0, "http_silence_s": 6.0, "http_requests_per_address": 10}
    with start(tansu, limits=limits | {"http_requests": 20}) as producer, ExitStack() as stack:
        silent = [stack.enter_context(connect(where(producer), source)) for _ in range(100)]
        for peer in silent:
            with suppress(ConnectionError):
                peer.sendall(said)
        wait_until(lambda: served(producer), 5)
        assert all(ended(peer) for peer in silent)
        wait_until(lambda: nobody_inside(producer), 10)


def test_a_head_that_trickles_has_its_time(start: Start, tansu: str) -> None:
    """A header line every now and then keeps nobody's place."""
    with start(tansu, limits={"http_head_s": 2.0}) as producer, connect(where(producer)) as peer:
        peer.sendall(b"POST /studies HTTP/1.1\r\nHost: x\r\n")
        with suppress(ConnectionError):
            for number in range(100):
                peer.sendall(f"X-{number}: y\r\n".encode())
                time.sleep(0.1)
        assert number < 99
        assert refused(producer, "too_slow") == 1


def test_a_head_without_end_is_refused(start: Start, tansu: str) -> None:
    """Request line and headers have a size."""
    with start(tansu) as producer, connect(where(producer)) as peer:
        with suppress(ConnectionError):
            peer.sendall(b"POST /studies HTTP/1.1\r\nX: " + b"y" * 10_000_000)
        assert ended(peer, 8.0)
        assert served(producer)


def test_a_body_that_stops_gets_408(start: Start, tansu: str) -> None:
    """And nothing of it is held any more."""
    with start(tansu, limits={"http_silence_s": 1.0}) as producer, connect(where(producer)) as peer:
        peer.sendall(head() + body([bytes(50_000)])[:30_000])
        wait_until(lambda: producer.door("stow")._budget.held_bytes > 0, 10)
        assert peer.recv(65536).startswith(b"HTTP/1.1 408")
        assert refused(producer, "too_slow") == 1
        wait_until(lambda: nobody_inside(producer), 10)


def test_a_body_that_trickles_is_ended_by_its_rate(start: Start, tansu: str) -> None:
    """Never silent, never done."""
    limits = {"slow_grace_s": 1.0, "slow_bytes_per_s": 1000}
    with start(tansu, limits=limits) as producer, connect(where(producer)) as peer:
        peer.sendall(head() + body([bytes(50_000)])[:100])
        with suppress(ConnectionError):
            for _ in range(100):
                peer.sendall(b"x")
                time.sleep(0.1)
        assert refused(producer, "too_slow") == 1


def test_a_slow_but_honest_body_is_taken(start: Start, tansu: str) -> None:
    """Pauses within the limits, also long enough to wait among others, cost nothing."""

    def pausing() -> Iterator[bytes]:
        whole = body([part10(ct()), part10(ct())])
        for at in range(0, len(whole), 1000):
            yield whole[at : at + 1000]
            time.sleep(3.0 if at == 1000 else 0.05)

    with start(tansu) as producer:
        answer = httpx.post(
            f"{producer.stow}/studies", content=pausing(), headers={"Content-Type": MULTIPART}, timeout=30
        )
        assert answer.status_code == 200


def test_more_requests_than_one_address_may_have_get_503_and_when_to_come_back(start: Start, tansu: str) -> None:
    """Those in progress go on; another address is served."""
    with start(tansu, limits={"http_requests_per_address": 3}) as producer, ExitStack() as stack:
        greedy = [stack.enter_context(connect(where(producer))) for _ in range(4)]
        stop = threading.Event()

        def feed(peer: socket.socket) -> None:
            peer.sendall(head() + body([b"x"])[:-20])
            while not stop.wait(0.1):
                peer.sendall(b"x" * 2000)

        feeding = [threading.Thread(target=feed, args=(peer,)) for peer in greedy[:3]]
        for thread in feeding:
            thread.start()
        wait_until(lambda: producer.door("stow")._places.busy == 3, 10)
        greedy[3].sendall(head())
        told = greedy[3].recv(65536)
        assert told.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 5" in told.lower()
        assert refused(producer, "too_many") == 1
        assert served(producer)
        stop.set()
        for thread in feeding:
            thread.join(10)


def test_parts_without_end_are_413(start: Start, tansu: str) -> None:
    """What was stored before stays stored; the request is refused."""
    with start(tansu, limits={"stow_parts": 50}) as producer:
        assert post(producer, [b""] * 51).status_code == 413
        assert post(producer, [b""] * 50).status_code == 409
        wait_until(lambda: producer.door("stow")._budget.held_bytes == 0, 10)


def test_a_deflate_bomb_fails_alone(start: Start, tansu: str) -> None:
    """Its part is refused by size, the others are stored, and the budget has everything back."""
    with start(tansu) as producer:
        answer = post(producer, [part10(ct()), bomb(), part10(ct())])
        assert answer.status_code == 202
        told = answer.json()
        assert len(values(told, "00081199", "00081155")) == 2
        assert values(told, "00081198", REASON) + values(told, OTHER, REASON) == [0xC000]
        assert producer.door("stow")._budget.held_bytes == 0


def test_bombs_side_by_side_stay_within_one_budget(start: Start, tansu: str) -> None:
    """Each within its own cap: together they are refused for now, not inflated all at once."""
    nearly = bomb(48 * 1024**2)
    limits = {"memory_bytes": 64 * 1024**2, "inflated_bytes": 64 * 1024**2, "inflate_ratio": 2000}
    with start(tansu, limits=limits, payload={"inline_limit_bytes": 1024**2}) as producer:
        budget = producer.door("stow")._budget
        most: list[int] = []
        take = budget.take

        def noted(size_bytes: int, address: str = "") -> bool:
            taken = bool(take(size_bytes, address))
            most.append(budget.held_bytes)
            return taken

        budget.take = noted
        answer = post(producer, [nearly] * 6)
        assert answer.status_code in (200, 202, 409, 503)
        assert 48 * 1024**2 < max(most) <= 64 * 1024**2
        assert budget.held_bytes == 0
        assert {"door": "stow", "reason": "buffer_full"} in producer.hooks.labels_of(Happening.REFUSED)


@pytest.mark.parametrize("study", ["..%2F..%2Fetc", "1.2%00.3", "1.2%2F..%2F3", "%2e%2e", "a" * 3000])
def test_a_path_is_a_uid_or_nothing(start: Start, tansu: str, study: str) -> None:
    """400 or 404, never a study of that name."""
    with start(tansu) as producer:
        answer = post(producer, [part10(ct())], f"/studies/{study}")
        assert answer.status_code in (400, 404)
        assert producer.hooks.labels_of(Happening.RECEIVED) == []


def test_an_upload_in_progress_at_the_end_is_told_to_come_back(start: Start, tansu: str) -> None:
    """Not cut off: 503 and Retry-After, after a while in which it could have finished."""
    with start(tansu) as producer, connect(where(producer)) as peer:
        peer.sendall(head() + body([bytes(50_000)])[:5000])
        wait_until(lambda: producer.door("stow")._places.busy == 1, 10)
        ending = threading.Thread(target=producer.door("stow").close, args=(20.0,))
        ending.start()
        told = peer.recv(65536)
        ending.join(30)
    assert told.startswith(b"HTTP/1.1 503")
    assert b"retry-after: 5" in told.lower()
