"""Guards on the HTTP listeners that people, probes and scrapers ask: the worklist, and /live, /ready and /metrics.

The STOW door's guards hold here too (producer/http_in.py: a silent connection gives way, a head has its time). Added is
what a listener that tells needs: a caller that takes no answer is ended, and a body, which nobody needs here, is
refused by its announcement. The caps, all in ``limits``, are the same for every listener.
"""

import asyncio
import math
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope

from contracts.hooks import Happening, Hooks
from contracts.ports import Refusal
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.http_in import CONNECTION, GuardedProtocol, HttpGuards, guarded_protocol
from producer.places import Places, Seats

RETRY_AFTER_S = 5
_TOO_MANY = Refusal(503, "Too many requests at once; ask again later.", {"Retry-After": str(RETRY_AFTER_S)})
_NO_LENGTH = Refusal(411, "A body needs its Content-Length.", {"Connection": "close"})
_TOO_LARGE = Refusal(413, "The body is larger than any request here needs.", {"Connection": "close"})


class HttpEntrance:
    """``contracts.ports.Entrance`` of one listener: its own places, the common limits."""

    def __init__(self, limits: LimitSettings, hooks: Hooks, door: str, requests: int, per_address: int) -> None:
        self._limits, self._hooks, self._door = limits, hooks, door
        self._places = Places(Seats(limits.unasked_connections, requests, per_address, per_address))

    def config(self, app: ASGIApp, **more: Any) -> uvicorn.Config:
        """See ``Entrance.config``."""
        limits = self._limits
        return uvicorn.Config(
            app,
            access_log=False,  # request lines hold StudyInstanceUIDs; stages and metrics tell what is needed
            log_config=None,
            lifespan="off",
            ws="none",
            http=guarded_protocol(HttpGuards(limits, self._places, self._refused, lambda: False), ToldProtocol),
            h11_max_incomplete_event_size=limits.http_head_bytes,
            timeout_keep_alive=math.ceil(limits.http_head_s),
            **more,
        )

    def refusal(self, scope: Scope) -> Refusal | None:
        """See ``Entrance.refusal``."""
        headers = dict(scope["headers"])
        if b"transfer-encoding" in headers:
            return self._because(Reason.TOO_LARGE, _NO_LENGTH)
        if int(headers.get(b"content-length", b"0")) > self._limits.http_body_bytes:
            return self._because(Reason.TOO_LARGE, _TOO_LARGE)
        if not self._places.take(scope[CONNECTION]):
            return self._because(Reason.TOO_MANY, _TOO_MANY)
        return None

    def _because(self, reason: Reason, refusal: Refusal) -> Refusal:
        self._refused(reason)
        return refusal

    def _refused(self, reason: Reason) -> None:
        self._hooks.happened(Happening.REFUSED, door=self._door, reason=reason.value)


class ToldProtocol(GuardedProtocol):
    """A guarded connection whose every answer must also be taken."""

    _answer_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Paused, from now on, means: something is not taken."""
        transport.set_write_buffer_limits(high=0)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """The time of an answer begins, or begins anew."""
        super().pause_writing()
        self._stop_answer_timer()
        self._answer_timer = self.loop.call_later(self.guards.limits.http_answer_s, self._not_taken)

    def resume_writing(self) -> None:
        """It was taken."""
        self._stop_answer_timer()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is left to take it."""
        self._stop_answer_timer()
        super().connection_lost(exc)

    def _not_taken(self) -> None:
        self.guards.refused(Reason.TOO_SLOW)
        self.transport.abort()

    def _stop_answer_timer(self) -> None:
        if self._answer_timer is not None:
            self._answer_timer.cancel()
            self._answer_timer = None
