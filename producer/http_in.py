"""Guards on one HTTP connection: who may stay, how long a request's head may take, and how slowly its body may come.

uvicorn counts connections, whatever they do, and waits for ever for a head that trickles or a body that stops: 64
silent sockets close its door. Here a connection without a request waits and gives way (places.py), a head has its time,
a body that falls silent waits again and is ended in the end, and one that trickles is ended by its mean rate.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from contracts.errors import TriageError
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.places import Places
from producer.stamp_call import monotonic_s

CONNECTION = "triage.connection"  # in the ASGI scope
RESTING_S = 2.0  # a body silent that long may have to give way to others
TURN_S = 0.5  # how often a reader looks whether it should go on waiting


class Late(TriageError):
    """The body stopped, or trickles: 408."""


class GoingAway(TriageError):
    """This service ends, and the body is not complete: 503."""


@dataclass(frozen=True, slots=True)
class HttpGuards:
    """What every connection is held to. ``refused``: told why one was ended. ``leaving``: whether readers must end."""

    limits: LimitSettings
    places: Places
    refused: Callable[[Reason], None]
    leaving: Callable[[], bool]


class GuardedProtocol(H11Protocol):
    """One connection. ``guards`` are its class's own; its methods run in the server's loop."""

    guards: HttpGuards
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """It waits, others may have to give way to it, and the time of its first head begins."""
        super().connection_made(transport)
        for other in self.guards.places.enter(self, self.client[0] if self.client else "", monotonic_s()):
            _end(other, self.guards, Reason.TOO_MANY)
        self._await_head()

    def handle_events(self) -> None:
        """Bytes came. A head that is complete is a request, which knows its connection."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_timer()
            scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # the application's own entry; its task has not begun
            scope[CONNECTION] = self

    def on_response_complete(self) -> None:
        """It waits again, for another request."""
        self.guards.places.rest(self, monotonic_s())
        self._await_head()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over, by whoever's hand."""
        self._stop_timer()
        self.guards.places.leave(self)
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_timer()
        limit_s = self.guards.limits.http_head_s
        self._head_timer = self.loop.call_later(limit_s, _end, self, self.guards, Reason.TOO_SLOW)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def guarded_protocol(guards: HttpGuards, base: type[GuardedProtocol] = GuardedProtocol) -> type[GuardedProtocol]:
    """A protocol class whose every connection is held to these: the server makes the protocols itself."""
    return type(base.__name__, (base,), {"guards": guards})


def _end(connection: Any, guards: HttpGuards, reason: Reason) -> None:
    """At once where a request is missing or half there; one that is kept alive and idle is closed in good form."""
    if connection.transport.is_closing():
        return
    if connection.cycle is not None and connection.cycle.response_complete and not connection.conn.trailing_data[0]:
        connection.transport.close()
        return
    guards.refused(reason)
    connection.transport.abort()


async def pieces(request: Request, guards: HttpGuards) -> AsyncIterator[bytes]:
    """The body as it comes. Raises Late, GoingAway, ClientDisconnect.

    Only the time that we wait for the client counts against it, not what it waits for us.
    """
    waited_s, size_bytes, more = 0.0, 0, True
    while more:
        message, seconds = await _next(request, guards)
        waited_s += seconds
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        size_bytes += len(message.get("body", b""))
        if waited_s > guards.limits.slow_grace_s and size_bytes < waited_s * guards.limits.slow_bytes_per_s:
            raise Late("the body comes too slowly")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def _next(request: Request, guards: HttpGuards) -> tuple[Any, float]:
    """The next message, and how long it took. A silent connection waits again, and may have to give way."""
    connection = request.scope[CONNECTION]
    began_s = monotonic_s()
    coming = asyncio.ensure_future(request.receive())
    try:
        while not (await asyncio.wait({coming}, timeout=TURN_S))[0]:
            silent_s = monotonic_s() - began_s
            if guards.leaving():
                raise GoingAway("this service ends; send again")
            if silent_s > guards.limits.http_silence_s:
                raise Late("the body stopped")
            if silent_s > RESTING_S:
                guards.places.rest(connection, began_s)
    finally:
        coming.cancel()  # of no effect where it has come
    guards.places.resume(connection)
    return coming.result(), monotonic_s() - began_s
