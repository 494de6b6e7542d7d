"""The queue's store: how redis-py's clients are made, plain and asynchronous, and what its exceptions become."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
import redis.asyncio as aio
from redis import exceptions as foreign
from redis.asyncio.retry import Retry as AioRetry
from redis.backoff import NoBackoff
from redis.retry import Retry

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused, PeerTimeout, SettingsError
from contracts.settings import RedisSettings

PEER = "redis"
_ONE_MORE_TRY = 1  # a connection that the server closed while it idled; the client's own default of 10 takes seconds

# First match wins: the more special class stands first.
ERRORS: tuple[tuple[type[Exception], type[PeerError]], ...] = (
    (foreign.BusyLoadingError, PeerBusy),
    (foreign.TryAgainError, PeerBusy),
    (foreign.MaxConnectionsError, PeerBusy),
    (foreign.OutOfMemoryError, PeerBusy),
    (foreign.AuthenticationError, PeerRefused),
    (foreign.TimeoutError, PeerTimeout),
    (foreign.ConnectionError, PeerAway),
    (foreign.RedisError, PeerRefused),
    (OSError, PeerAway),
)


@contextmanager
def mapped() -> Iterator[None]:
    """Foreign exceptions stop here, around a call or an ``await``.

    The detail is a class name: messages may quote stored values.
    """
    try:
        yield
    except (foreign.RedisError, OSError) as problem:
        ours = next(ours for theirs, ours in ERRORS if isinstance(problem, theirs))
        raise ours(PEER, type(problem).__name__) from None


def make_redis(settings: RedisSettings) -> "redis.Redis":
    """A client that connects on first use, to a server that may be away. Raises SettingsError."""
    with _sentence():
        return redis.Redis.from_url(_url(settings), retry=Retry(NoBackoff(), _ONE_MORE_TRY), **_options(settings))


def make_async_redis(settings: RedisSettings) -> "aio.Redis":
    """As ``make_redis``, for an event loop."""
    with _sentence():
        return aio.Redis.from_url(_url(settings), retry=AioRetry(NoBackoff(), _ONE_MORE_TRY), **_options(settings))


def _url(settings: RedisSettings) -> str:
    return settings.url.get_secret_value()


def _options(settings: RedisSettings) -> dict[str, Any]:
    return {
        "socket_timeout": settings.timeout_s,
        "socket_connect_timeout": settings.timeout_s,
        "protocol": 2,  # the same answers from Redis and Valkey, whatever redis-py's default
    }


@contextmanager
def _sentence() -> Iterator[None]:
    """Without the URL: it may hold a password."""
    try:
        yield
    except ValueError:
        raise SettingsError("redis.url is not a redis://, rediss:// or unix:// URL.") from None
