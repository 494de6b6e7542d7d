"""The worklist as a service: one event loop with the HTTP server, the tail of the changes and the look at the view."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Mapping

import uvicorn

from contracts.errors import SettingsError
from contracts.hooks import Hooks
from contracts.ports import Entrance
from contracts.settings import Settings, WorklistSettings
from worklist.access import check_settings
from worklist.http_out import Desk, make_app
from worklist.live import Hub
from worklist.reading import Reading
from worklist.view import View
from worklist.watch import Watch

BACKLOG = 128  # connections that the kernel holds while we are busy
DRAIN_S = 5  # answers in hand may take so long after the stop; live readers are let go at once
STOP_LOOK_S = 0.1  # how often the stop is looked for


class WorklistService:
    """``contracts.ports.Service``. Ready as soon as it listens, whatever Redis does (design decision 13)."""

    name = "worklist"

    def __init__(self, settings: Settings, hooks: Hooks, view: View, entrance: Entrance) -> None:
        """Raises SettingsError where the settings would show patient data to strangers."""
        check_settings(settings.worklist)
        self._settings = settings
        self._hooks = hooks
        self._view = view
        self._entrance = entrance
        self._reading: Reading | None = None
        self._address = ""

    def run(self, stop: threading.Event) -> None:
        """See ``Service.run``."""
        asyncio.run(self._serve(stop))

    def ready(self) -> bool:
        """See ``Service.ready``."""
        return bool(self._address)

    def peers(self) -> Mapping[str, str]:
        """See ``Service.peers``."""
        up = self._reading.up if self._reading else None
        return {"redis": "unknown" if up is None else "up" if up else "away"}

    def addresses(self) -> Mapping[str, str]:
        """See ``Service.addresses``."""
        return {"worklist": self._address} if self._address else {}

    async def _serve(self, stop: threading.Event) -> None:
        desk = self._desk()
        self._reading = desk.reading
        listener = listen(self._settings.worklist)
        try:
            async with _watching(desk):
                await self._answer(desk, listener, stop)
        finally:
            self._address = ""
            listener.close()
            await desk.view.close()

    def _desk(self) -> Desk:
        settings = self._settings
        reading = Reading(self._view, settings.worklist.stale_s, time.time, self._hooks)
        return Desk(settings.worklist, reading, self._view, Hub(), self._hooks, self._entrance)

    async def _answer(self, desk: Desk, listener: socket.socket, stop: threading.Event) -> None:
        """1. Serve. 2. At the stop let live readers go. 3. Finish what is in hand."""
        server = uvicorn.Server(_config(desk))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not (serving.done() or stop.is_set()):
            if server.started and not self._address:
                self._address = _url(listener)
            await asyncio.sleep(STOP_LOOK_S)
        desk.hub.close()
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def _watching(desk: Desk) -> AsyncIterator[None]:
    watch = Watch(desk.view, desk.hub, desk.reading, desk.hooks)
    tasks = [asyncio.create_task(watch.look()), asyncio.create_task(watch.tail())]
    try:
        yield
    finally:
        desk.hub.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _config(desk: Desk) -> uvicorn.Config:
    config: uvicorn.Config = desk.entrance.config(
        make_app(desk),
        log_level="warning",
        server_header=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=DRAIN_S,
    )
    return config


def listen(settings: WorklistSettings) -> socket.socket:
    """A listening socket. Raises SettingsError with a sentence when the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise SettingsError(
            f"worklist.host and worklist.port: cannot listen on {settings.host}:{settings.port} ({problem.strerror})."
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
