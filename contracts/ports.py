"""Ports: what a room needs from a client that several rooms share. ``launch`` makes them and hands them in."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from contracts.scans import Place

Header = tuple[str, bytes]
Mapped = Callable[[], AbstractContextManager[None]]  # around a client's call: its exceptions become ours


@dataclass(frozen=True, slots=True)
class Entry:
    """One record to append. ``value`` None is a tombstone."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: Sequence[Header] = field(default=())

    @property
    def size_bytes(self) -> int:
        """What it costs in the send buffer."""
        return len(self.key) + len(self.value or b"") + sum(len(name) + len(v) for name, v in self.headers)


class Log(Protocol):
    """Durable append: acks=all, idempotent, with the guards against the client's known faults."""

    @property
    def partitions(self) -> int:
        """The one partition count of every topic. Raises PeerAway while the broker has never answered."""

    def append(self, entry: Entry) -> "Future[Place]":
        """Never blocks for long. The future yields the record's place once every in-sync replica has it.

        The future (or this call) fails with PeerAway, PeerBusy (send buffer over its high-water mark), PeerTimeout or
        PeerRefused (too large). A record whose future failed may still be in the log.
        """

    def up(self) -> bool:
        """Whether the broker answered lately."""

    def close(self, timeout_s: float) -> None:
        """Waits for what is in flight, at most that long."""


class Service(Protocol):
    """A long-running part of a room, as ``launch`` runs it."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Blocks until ``stop`` is set and the work in hand is drained. Raises when it cannot go on."""

    def ready(self) -> bool:
        """Able to answer its callers, whatever its peers do (design decision 13)."""

    def peers(self) -> Mapping[str, str]:
        """Peer name → "up", "away" or "unknown"; or one word for a peer that answers and is of no use as it is.

        Of the store: "full" (out of memory), "read_only" (a replica), "evicting" (it may drop studies by itself).
        """

    def addresses(self) -> Mapping[str, str]:
        """What it listens on, by name, once ready: e.g. {"dicom": "127.0.0.1:11112"}."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an HTTP request is not let in: its status, a sentence without what was sent, headers of the answer."""

    code: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Entrance(Protocol):
    """Who may come in at one HTTP listener: silent, slow, greedy and large callers leave room for the others."""

    def config(self, app: Any, **more: Any) -> Any:
        """The ``uvicorn.Config`` of the listener, ``more`` being further options: connections are guarded."""

    def refusal(self, scope: Any) -> Refusal | None:
        """Asked once for each request (its ASGI scope) before anything is done for it. None: it is let in."""
