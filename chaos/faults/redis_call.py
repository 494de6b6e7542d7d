"""What happens to the view's store: emptied, cut short. The log must bring all of it back."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import redis

from launch.stack.redis_server import RedisServer

ANSWER_S = 5.0  # of a healthy Redis on loopback


def emptied(server: RedisServer) -> None:
    """FLUSHALL, as an administrator types it into the wrong window."""
    with redis.Redis.from_url(server.url, socket_timeout=ANSWER_S) as client:
        client.flushall()


def cut_short(server: RedisServer, dice: Random) -> str:
    """Cuts the append-only file of a killed Redis at any byte; how much was left, in words."""
    newest = max(_files(server), key=lambda file: file.stat().st_mtime, default=None)
    if newest is None:
        return "there was no append-only file"
    size = newest.stat().st_size
    left = dice.randint(0, size)
    with newest.open("r+b") as file:
        file.truncate(left)
    return f"append-only file cut from {size} to {left} bytes"


def removed(server: RedisServer) -> None:
    """A new disk: the killed Redis finds nothing."""
    for file in (server.folder / "appendonlydir").glob("*"):
        file.unlink()


def _files(server: RedisServer) -> Sequence[Path]:
    """The increments since the last rewrite (Redis ≥ 7 keeps one base and several)."""
    return sorted((server.folder / "appendonlydir").glob("*.incr.aof"))
