"""What every request passes: the entrance, the check of its Host, the SERVE stage, our headers, a net for faults."""

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from types import MappingProxyType

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.hooks import Happening, Hooks, Stage
from contracts.ports import Entrance, Refusal
from contracts.settings import WorklistSettings
from contracts.worklist import NOTICE, QueueStatus
from worklist.access import host_allowed

_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, version 00

# Patient data is cached nowhere; the page of the API loads nothing from elsewhere (its script writes inline styles).
_HEADERS = {
    "X-Triage-Notice": NOTICE,
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src 'self' data:",
}
_NOT_BY_THAT_NAME = "Without tokens this service answers only to localhost, 127.0.0.1 and [::1]."


class Doorway:
    """ASGI middleware. ``unstaged``: the path of the endless stream, which has no duration to measure."""

    def __init__(  # what Starlette hands a middleware, by name
        self, app: ASGIApp, settings: WorklistSettings, hooks: Hooks, entrance: Entrance, unstaged: str
    ) -> None:
        self._app = app
        self._settings = settings
        self._hooks = hooks
        self._entrance = entrance
        self._unstaged = unstaged

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request. Nothing that goes wrong inside gets out as a traceback: it could hold stored values."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        try:
            await self._staged(scope, receive, answer)
        except Exception:  # noqa: BLE001 — the net: counted, and told to the caller without a word of content
            self._hooks.happened(Happening.FAULT, where="worklist.http")
            if not answer.begun:
                await _fault(500, "An unexpected fault; it was counted.")(scope, receive, answer)

    async def _staged(self, scope: Scope, receive: Receive, answer: "_Answer") -> None:
        if refusal := self._entrance.refusal(scope):
            await _refused(refusal)(scope, receive, answer)
            return
        headers = Headers(scope=scope)
        if not host_allowed(self._settings, headers.get("host", "")):
            await _fault(421, _NOT_BY_THAT_NAME)(scope, receive, answer)
            return
        with self._stage(scope["path"], headers.get("traceparent", "")):
            await self._app(scope, receive, answer)

    def _stage(self, path: str, traceparent: str) -> AbstractContextManager[None]:
        if path == self._unstaged:
            return nullcontext()
        known = traceparent if _TRACEPARENT.fullmatch(traceparent) else ""
        return self._hooks.stage(Stage.SERVE, known)


class _Answer:
    """``send`` that puts our headers on the answer and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers[name] = value
        await self._send(message)


def _refused(refusal: Refusal) -> JSONResponse:
    return _fault(refusal.code, refusal.detail, refusal.headers)


def _fault(code: int, detail: str, headers: Mapping[str, str] = MappingProxyType({})) -> JSONResponse:
    body = {"status": QueueStatus.DEGRADED.value, "detail": detail, "notice": NOTICE}
    return JSONResponse(body, code, headers)
