"""The whole service while its store is full, read-only, hung or dropping keys: it says so, waits and goes on."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from contracts.events import StudyEvent
from contracts.hooks import Happening
from launch.clients.kafka_call import ensure_topics
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import LOUD, QUIET, arrived, scored
from tests.test_worker.flagging_running import Site, site, uids, wait_until

pytestmark = pytest.mark.stack

(A, _) = uids()


def images(start: int, *loud: int, count: int = 2) -> list[StudyEvent]:
    """Arrivals and scores of study A, now."""
    numbers = range(start, start + count)
    pairs = ((arrived(n, study=A), scored(n, LOUD if n in loud else QUIET, study=A)) for n in numbers)
    return [event.model_copy(update={"at": time.time()}) for event in itertools.chain.from_iterable(pairs)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServer]:
    """A store that a test may hurt."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def here(tansu: str, own: RedisServer, topic_prefix: str) -> Iterator[Site]:
    """A running service on the embedded broker, with two images settled."""
    with site(tansu, own.url, topic_prefix) as made:
        ensure_topics(made.settings.kafka, made.hooks)
        with made.running():
            made.append(*images(0))
            settled(made, 2)
            wait_until(made.ready, "ready")
            yield made


def settled(here: Site, count: int) -> None:
    """Waits until so many images of study A are settled in the view, each once."""
    wait_until(lambda: (one := here.item(A)) and one.images_settled == count, f"{count} settled")
    assert [image.item.settlements for image in here.images(A)] == [1] * count


def says(here: Site, state: str) -> None:
    """Waits until the service's peers say so of the store."""
    wait_until(lambda: here.service and here.service.peers()["redis"] == state, f"the store is {state}")


def last(here: Site, happening: Happening) -> list[float]:
    """What was told of each partition, newest."""
    newest = {str(labels): value for name, value, labels in list(here.hooks.told) if name is happening}
    return list(newest.values())


@contextmanager
def _full(client: Any, _: RedisServer) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    yield
    client.config_set("maxmemory", 0)


@contextmanager
def _replica(client: Any, _: RedisServer) -> Iterator[None]:
    client.replicaof("127.0.0.1", "1")
    yield
    client.replicaof("NO", "ONE")


@contextmanager
def _hung(_: Any, server: RedisServer) -> Iterator[None]:
    assert server._process
    os.kill(server._process.pid, signal.SIGSTOP)
    yield
    os.kill(server._process.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    ("hurt", "state"), [(_full, "full"), (_replica, "read_only"), (_hung, "away")], ids=["full", "replica", "hung"]
)
def test_a_store_that_cannot_be_written_is_named_waited_for_and_caught_up(
    here: Site, own: RedisServer, hurt: Callable[[Any, RedisServer], Any], state: str
) -> None:
    """Peers say what is wrong, the lag grows in records and seconds meanwhile, no count of what waits stays frozen;
    back again without a restart, everything is there, once.
    """
    with hurt(here.client, own):
        says(here, state)
        if state == "full":
            assert not here.client.hexists(here.keys.partition(0), "beat"), "readers hear at once that nothing moves"
        here.append(*images(2, 2, 3))
        wait_until(lambda: max(last(here, Happening.LAG_RECORDS), default=0.0) >= 4, "the lag is told in records")
        first = max(last(here, Happening.LAG_SECONDS))
        wait_until(lambda: max(last(here, Happening.LAG_SECONDS)) > first + 1.0, "the lag grows in seconds")
        assert all(isnan(value) for value in last(here, Happening.IMAGES_WAITING)), "NaN: nobody knows"
    settled(here, 4)
    assert here.state(A) == ("flagged", False)
    says(here, "up")
    wait_until(lambda: max(last(here, Happening.LAG_RECORDS)) == 0, "no lag")
    assert here.told() == ["received", "flagged"]


def test_a_store_that_may_drop_keys_is_told_and_what_it_drops_is_built_anew(here: Site) -> None:
    """A peer state and a fault before anything is lost; and when it is lost, the view comes back whole."""
    here.client.config_set("maxmemory", 1 << 30)
    here.client.config_set("maxmemory-policy", "allkeys-random")
    here.client.delete(here.keys.partition(0), here.keys.partition(1))  # taken anew, so it is looked at now
    says(here, "evicting")
    faults = [labels["where"] for name, _, labels in here.hooks.told if name is Happening.FAULT]
    assert "redis_may_evict" in faults
    here.append(*images(2, 2, 3))
    settled(here, 4)
    used = here.client.info("memory")["used_memory"]
    here.client.config_set("maxmemory", used + 100_000)
    for n in range(200):
        here.client.set(f"junk{n}", "x" * 4096)
    assert here.client.info("stats")["evicted_keys"]
    here.client.config_set("maxmemory", 1 << 30)
    wait_until(lambda: here.state(A) == ("flagged", False) and here.ready(), "the view is whole again")
    settled(here, 4)
    here.client.config_set("maxmemory-policy", "noeviction")
