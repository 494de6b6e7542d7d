"""The store's clients: one factory, one table of errors."""

import asyncio
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from redis import exceptions as foreign

from contracts.errors import PeerAway, PeerBusy, PeerError, PeerRefused, PeerTimeout, SettingsError
from contracts.settings import RedisSettings
from launch.clients.redis_call import make_async_redis, make_redis, mapped
from launch.stack.redis_server import RedisServer


@pytest.mark.parametrize("make", [make_redis, make_async_redis])
def test_a_wrong_url_is_one_sentence_without_the_url(make: Callable[[RedisSettings], object]) -> None:
    """Both kinds of client say the same, and nothing of a password."""
    with pytest.raises(SettingsError) as told:
        make(RedisSettings(url=SecretStr("http://user:secret@nowhere")))
    assert str(told.value) == "redis.url is not a redis://, rediss:// or unix:// URL."


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (foreign.BusyLoadingError, PeerBusy),
        (foreign.OutOfMemoryError, PeerBusy),
        (foreign.ReadOnlyError, PeerRefused),
        (foreign.AuthenticationError, PeerRefused),
        (foreign.TimeoutError, PeerTimeout),
        (foreign.ConnectionError, PeerAway),
        (foreign.ResponseError, PeerRefused),
        (BrokenPipeError, PeerAway),
    ],
)
def test_each_exception_becomes_one_of_ours_without_its_words(theirs: type[Exception], ours: type[PeerError]) -> None:
    """The detail is the class's name: a message may quote what is stored."""
    with pytest.raises(PeerError) as told, mapped():
        raise theirs("Specimen^Alice")
    assert type(told.value) is ours
    assert (told.value.peer, told.value.detail) == ("redis", theirs.__name__)


def test_both_clients_reach_a_real_server_and_map_one_that_is_gone(redis_server: RedisServer) -> None:
    """The same mapping holds around a call and around an await."""
    settings = RedisSettings(url=SecretStr(redis_server.url), timeout_s=1.0)
    gone = RedisSettings(url=SecretStr("redis://127.0.0.1:1/0"), timeout_s=1.0)

    async def ask(of: RedisSettings) -> bool:
        client = make_async_redis(of)
        try:
            with mapped():
                return bool(await client.ping())
        finally:
            await client.aclose()

    with make_redis(settings) as client:
        assert client.ping()
    assert asyncio.run(ask(settings))
    with pytest.raises(PeerAway), mapped():
        make_redis(gone).ping()
    with pytest.raises(PeerAway):
        asyncio.run(ask(gone))
