"""What the worklist may do with a cursor, and with a request to its API."""

import asyncio
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from chaos.fuzz.doubles import FaultsTold, OpenEntrance, SmallView
from chaos.fuzz.parcel import unpack
from chaos.fuzz.target import Call
from contracts.errors import DecodeError
from contracts.settings import WorklistSettings
from worklist.cursor import Cursor
from worklist.http_out import Desk, make_app
from worklist.live import Hub
from worklist.reading import Reading
from worklist.view import id_order


def cursor() -> Call:
    """A text is a place in the order, or refused."""

    def call(data: bytes) -> None:
        text = data.decode("latin-1")
        with suppress(DecodeError):
            place = Cursor.decode(text)
            place.order  # noqa: B018 - must not raise
            if Cursor.decode(place.encode()) != place:
                raise AssertionError("a cursor is another after encode and decode")
        with suppress(ValueError):
            id_order(text)

    return call


def api() -> Call:
    """The application without its socket. Every answer is one of ours: 500 means a fault."""
    view, hooks, hub = SmallView(), FaultsTold(), Hub()
    reading = Reading(view, 30.0, lambda: 1.0, hooks)
    hub.close()  # live readers are let go at once: their stream is tried at the real door
    app = make_app(Desk(WorklistSettings(), reading, view, hub, hooks, OpenEntrance()))
    loop = asyncio.new_event_loop()

    def call(data: bytes) -> None:
        status, body = loop.run_until_complete(_asked(app, data))
        if status >= 500 and status != 503:  # noqa: PLR2004 - HTTP's own numbers
            raise AssertionError(f"answered {status}: {body[:200]!r}")
        if faults := set(hooks.take()) - {"worklist.item", "worklist.study"}:  # one study is stored broken
            raise AssertionError(f"our own code failed at a request: {faults}")

    return call


async def _asked(app: Any, data: bytes) -> tuple[int, bytes]:
    method, target, *pairs = (*unpack(data), b"", b"")
    path, _, query = target.partition(b"?")
    headers = [(name.lower(), value) for name, value in zip(pairs[::2], pairs[1::2], strict=False)]
    scope = {
        "type": "http",
        "method": method.decode("latin-1") or "GET",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "headers": headers,
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
    }
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    status = next(one["status"] for one in sent if one["type"] == "http.response.start")
    return int(status), b"".join(one.get("body", b"") for one in sent)
