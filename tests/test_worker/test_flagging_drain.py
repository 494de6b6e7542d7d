"""SIGTERM to flagging at any moment: readiness off, what is in hand finished or handed back, exit in time."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from launch.clients.kafka_call import ensure_topics
from launch.stack.redis_server import RedisServer
from launch.stack.tansu import Tansu
from tests.test_worker.flagging_events import LOUD, QUIET, arrived, scored
from tests.test_worker.flagging_running import Site, site, uids, wait_until

pytestmark = pytest.mark.stack

GRACE_S = 30.0  # Kubernetes' default grace period
(A, B), IMAGES = uids(), 60
Hurt = Callable[[RedisServer, Tansu], None]


def _process_of(part: Any) -> int:
    assert part._process
    return int(part._process.pid)


def _well(_: RedisServer, __: Tansu) -> None:
    """Nothing is wrong."""


def _store_hangs(store: RedisServer, _: Tansu) -> None:
    os.kill(_process_of(store), signal.SIGSTOP)


def _store_gone(store: RedisServer, _: Tansu) -> None:
    store.kill()


def _broker_gone(_: RedisServer, broker: Tansu) -> None:
    broker.kill()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """A store of this test alone."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.close()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Tansu]:
    """A broker of this test alone."""
    server = Tansu(tmp_path / "tansu")
    server.start()
    yield server
    server.close()


def _lines(folder: Path, event: str) -> list[dict[str, Any]]:
    lines = (folder / "worker.log").read_text(encoding="utf-8").splitlines()
    return [one for line in lines if line.startswith("{") and (one := json.loads(line)).get("event") == event]


def _probe(folder: Path) -> str:
    wait_until(lambda: _lines(folder, "ready"), "ready", 60.0)
    return f"http://{_lines(folder, 'ready')[0]['addresses']['probes']}/ready"


def _ends_in_time(process: "subprocess.Popen[bytes]", probe: str) -> None:
    """Not ready from the signal on, and exit 0 within the grace period."""
    assert httpx.get(probe, timeout=10).status_code == 200
    process.send_signal(signal.SIGTERM)
    until = time.monotonic() + GRACE_S
    while process.poll() is None and time.monotonic() < until:
        try:
            answer = httpx.get(probe, timeout=10)
        except httpx.HTTPError:
            break
        if answer.status_code == 503:
            break
        time.sleep(0.02)
    assert process.wait(GRACE_S) == 0


@pytest.mark.parametrize("hurt", [_well, _store_hangs, _store_gone, _broker_gone])
def test_it_ends_within_the_grace_period_whatever_its_peers_do(
    broker: Tansu, store: RedisServer, topic_prefix: str, tmp_path: Path, hurt: Hurt
) -> None:
    """In mid-study, with a store that hangs or is gone, with a broker that is gone: exit code 0 in time."""
    with site(broker.bootstrap, store.url, topic_prefix) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        process = here.process(tmp_path)
        try:
            probe = _probe(tmp_path)
            here.append(*(arrived(n, study=A) for n in range(5)))
            wait_until(lambda: here.item(A), "listed")
            hurt(store, broker)
            time.sleep(1.0)  # it has met what is wrong, or is in the middle of it
            _ends_in_time(process, probe)
        finally:
            process.kill()
            process.wait()


def _stopped_on_the_way(here: Site, folder: Path, sent: int) -> None:
    """Starts a worker, appends so many more events, and ends it while it reads them."""
    folder.mkdir()
    process = here.process(folder)
    try:
        probe = _probe(folder)
        for study in (A, B):
            for n in range(sent, sent + IMAGES // 3):
                here.append(arrived(n, study=study), scored(n, LOUD if n in {2, 3} else QUIET, study=study))
        _ends_in_time(process, probe)
    finally:
        process.kill()
        process.wait()


def test_three_restarts_in_mid_batch_lose_and_double_nothing(
    broker: Tansu, store: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    """What was in hand is finished or read again by the next: every image once, every change told once."""
    with site(broker.bootstrap, store.url, topic_prefix) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        for turn in range(3):
            _stopped_on_the_way(here, tmp_path / f"turn-{turn}", turn * IMAGES // 3)
        with here.running():
            for study in (A, B):
                wait_until(lambda uid=study: (i := here.item(uid)) and i.images_settled == IMAGES, "settled")  # type: ignore[misc]
                assert [image.item.settlements for image in here.images(study)] == [1] * IMAGES
            assert sorted(here.told()) == ["flagged", "flagged", "received", "received"]
        assert sorted(record["change"] for record in here.audit()) == ["flagged", "flagged", "received", "received"]
