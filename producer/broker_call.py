"""Keeps an eye on the broker for the producer: topics made and checked at start, memory cleared on a loss."""

import threading
from collections.abc import Callable, Mapping

from contracts.errors import PeerError
from contracts.hooks import Happening, Hooks
from contracts.ports import Log

RETRY_S = 2.0
LOOK_EVERY_S = 0.05  # shorter than any reconnection, so that none is missed


class BrokerWatch:
    """``run`` until stopped. Raises SettingsError where topics do not meet what ``require_durable`` asks."""

    def __init__(
        self, ensure_topics: Callable[[], list[str]], log: Log, hooks: Hooks, lost: Callable[[], None]
    ) -> None:
        """``lost`` is called whenever the broker is found away."""
        self._ensure_topics, self._log, self._hooks, self._lost = ensure_topics, log, hooks, lost
        self._warnings: list[str] = []
        self._checked = False

    def run(self, stop: threading.Event) -> None:
        """1. Topics, until it worked. 2. Whether the broker answers, to the end."""
        while not stop.is_set() and not self._topics():
            self._look()
            stop.wait(RETRY_S)
        while not stop.wait(LOOK_EVERY_S):
            self._look()

    def peers(self) -> Mapping[str, str]:
        """``topics`` tells in words what is wrong with them."""
        topics = "; ".join(self._warnings) if self._warnings else "up" if self._checked else "unknown"
        return {"kafka": "up" if self._log.up() else "away", "topics": topics}

    def checked(self) -> bool:
        """Whether the broker was there and its topics were compared with what is asked of them."""
        return self._checked

    def _topics(self) -> bool:
        try:
            self._warnings = self._ensure_topics()
        except PeerError:
            return False
        self._checked = True
        for _ in self._warnings:
            self._hooks.happened(Happening.FAULT, where="topics")
        return True

    def _look(self) -> None:
        if not self._log.up():
            self._lost()
