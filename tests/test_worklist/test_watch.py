"""The two loops beside the answers."""

import asyncio
import random

import pytest
from pydantic import SecretStr

from contracts.hooks import Silent
from contracts.settings import RedisSettings
from launch.clients.redis_call import make_async_redis, mapped
from launch.stack.redis_server import RedisServer
from tests.test_worklist.view_writer import PARTITIONS
from worklist.live import Hub
from worklist.reading import Reading
from worklist.redis_in import RedisView
from worklist.watch import Watch


def test_the_loops_end_whenever_they_are_stopped(
    redis_server: RedisServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """redis-py now and then turns a cancellation into a timeout: the loops end all the same, at any moment."""
    for name in ("TAIL_WAIT_S", "LOOK_S", "AGAIN_S"):
        monkeypatch.setattr(f"worklist.watch.{name}", 0.003)
    settings = RedisSettings(url=SecretStr(redis_server.url), key_prefix=prefix, timeout_s=1.0)

    async def once() -> None:
        view, hub = RedisView(settings, PARTITIONS, make_async_redis(settings), mapped), Hub()
        watch = Watch(view, hub, Reading(view, 30.0, lambda: 1.0, Silent()), Silent())
        tasks = [asyncio.create_task(watch.tail()), asyncio.create_task(watch.look())]
        await asyncio.sleep(random.random() * 0.01)
        hub.close()
        for task in tasks:
            task.cancel()
        _, pending = await asyncio.wait(tasks, timeout=5)
        assert not pending
        await view.close()

    async def often() -> None:
        for _ in range(150):
            await once()

    asyncio.run(often())
