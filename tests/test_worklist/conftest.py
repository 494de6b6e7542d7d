"""A view in a real store, and the real service that serves it."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from contracts.hooks import Hooks, Silent
from contracts.settings import KafkaSettings, LimitSettings, RedisSettings, Settings, WorklistSettings
from launch.stack.redis_server import RedisServer
from launch.wiring import worklist as wiring
from tests.test_worklist.view_writer import PARTITIONS, Writer

START_S = 20.0


@dataclass(frozen=True)
class Served:
    """A running worklist."""

    url: str
    peers: Callable[[], Any]

    def get(self, path: str, headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
        """GET, with a fresh connection."""
        return httpx.get(self.url + path, params=params, headers=headers, timeout=20)


Serve = Callable[..., AbstractContextManager[Served]]


def until(what: str, true: Callable[[], Any], within_s: float = START_S) -> Any:
    """Polls until the answer is true; fails with ``what``."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if answer := true():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s:g} s: {what}")


def settings_for(url: str, prefix: str, limits: Mapping[str, Any] | None = None, **worklist: Any) -> Settings:
    """Settings of a worklist on a free port; ``limits``: of the section limits."""
    return Settings(
        kafka=KafkaSettings(partitions=PARTITIONS),
        redis=RedisSettings(url=SecretStr(url), key_prefix=prefix, timeout_s=1.0),
        worklist=WorklistSettings(port=0, **worklist),
        limits=LimitSettings(**(limits or {})),
    )


@contextmanager
def serving(settings: Settings, hooks: Hooks | None = None) -> Iterator[Served]:
    """The service as ``launch`` runs it: in a thread, until the stop is set."""
    (service,) = wiring.build(settings, hooks or Silent())
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            service.run(stop)
        except BaseException as problem:  # noqa: BLE001  # told to the test below
            failed.append(problem)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        until("the worklist is ready", lambda: service.ready() or failed)
        assert not failed, failed
        yield Served(service.addresses()["worklist"], service.peers)
    finally:
        stop.set()
        thread.join(START_S)
    assert not thread.is_alive()
    assert not failed, failed


@pytest.fixture
def prefix() -> str:
    """Keeps a test's keys apart on a shared store."""
    return f"t{uuid.uuid4().hex[:12]}:"


@pytest.fixture
def writer(redis_server: RedisServer, prefix: str) -> Writer:
    """Writes the test's view."""
    return Writer(redis_server.url, prefix)


@pytest.fixture
def serve(redis_server: RedisServer, prefix: str) -> Serve:
    """Starts a worklist on the test's view; keyword arguments are settings of the section worklist."""

    def start(hooks: Hooks | None = None, **worklist: Any) -> AbstractContextManager[Served]:
        return serving(settings_for(redis_server.url, prefix, **worklist), hooks)

    return start
