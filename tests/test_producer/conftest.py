"""A producer on any broker."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.test_producer.running import Running, running, settings_of

Start = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def start(topic_prefix: str) -> Start:
    """Starts a producer on a given broker, with settings by section; the doors' are plain keywords."""

    def make(
        bootstrap: str,
        *,
        kafka: dict[str, Any] | None = None,
        payload: dict[str, Any] | None = None,
        limits: dict[str, Any] | None = None,
        broker_away: bool = False,
        **doors: Any,
    ) -> AbstractContextManager[Running]:
        settings = settings_of(bootstrap, topic_prefix, kafka or {}, payload or {}, limits, **doors)
        return running(settings, broker_away=broker_away)

    return make
