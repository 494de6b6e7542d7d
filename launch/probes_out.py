"""/live, /ready and /metrics of one process, on a port of its own.

``/live`` says that the process still turns. ``/ready`` is 200 only while every service can answer its callers, whatever
its peers do (design decision 13); its JSON tells the peers' states and what the process listens on. ``/metrics`` is
Prometheus's text format.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.errors import SettingsError
from contracts.ports import Refusal, Service
from contracts.settings import LimitSettings
from launch.http_entrance_in import HttpEntrance
from launch.log_out import told
from launch.observe_out import CONTENT_TYPE, Observer

_T = TypeVar("_T")

_NOTHING: Mapping[str, str] = MappingProxyType({})
_STARTED_S = 10.0  # uvicorn answers within milliseconds; a machine under load may need longer
_STOPPED_S = 2.0  # open requests of a probe are short


class Probes:
    """The probe server of one process. Raises SettingsError where its address cannot be had."""

    def __init__(  # where it listens and what it takes, beside whom it tells of
        self,
        services: Sequence[Service],
        observer: Observer,
        host: str,
        port: int,
        limits: LimitSettings | None = None,
    ) -> None:
        self._services = services
        self._observer = observer
        self._draining = False
        self._socket = _listen(host, port)
        self._entrance = _entrance(limits or LimitSettings(), observer)
        self._server = uvicorn.Server(self._entrance.config(self._application()))
        self._thread = threading.Thread(target=self._serve, name="probes", daemon=True)

    @property
    def address(self) -> str:
        """host:port, the port being the real one where 0 was asked for."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def start(self) -> None:
        """Returns once probes are answered."""
        self._thread.start()
        until = time.monotonic() + _STARTED_S
        while not self._server.started and self._thread.is_alive() and time.monotonic() < until:
            time.sleep(0.005)

    def draining(self) -> None:
        """From now on ``/ready`` is 503: nobody should send us anything new."""
        self._draining = True

    def stop(self) -> None:
        """Ends the server."""
        self._server.should_exit = True
        self._thread.join(_STOPPED_S)
        self._socket.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def _application(self) -> Starlette:
        answers: dict[str, Callable[[], Response]] = {
            "/live": lambda: JSONResponse({"live": True}),
            "/ready": self._ready,
            "/metrics": lambda: Response(self._observer.exposition(), media_type=CONTENT_TYPE),
        }
        return Starlette(routes=[Route(path, self._guarded(answer)) for path, answer in answers.items()])

    def _guarded(self, answer: Callable[[], Response]) -> Callable[[Request], Response]:
        def answered(request: Request) -> Response:
            refusal = self._entrance.refusal(request.scope)
            return answer() if refusal is None else _refused(refusal)

        return answered

    def _ready(self) -> Response:
        ready = {service.name: self._asked(service.ready, otherwise=False) for service in self._services}
        answer: dict[str, Any] = {
            "ready": all(ready.values()) and not self._draining,
            "draining": self._draining,
            "services": ready,
            "peers": self._peers(),
            "addresses": dict(self._asked(self._addresses, _NOTHING)),
        }
        return JSONResponse(answer, status_code=200 if answer["ready"] else 503)

    def _peers(self) -> dict[str, str]:
        """What the services know now stands over what they last told."""
        states = self._observer.peers()
        for service in self._services:
            sees = self._asked(service.peers, _NOTHING)
            states |= {name: state for name, state in sees.items() if state != "unknown" or name not in states}
        return states

    def _addresses(self) -> Mapping[str, str]:
        return addresses(self._services)

    def _asked(self, question: Callable[[], _T], otherwise: _T) -> _T:
        """A service that cannot even be asked, as while it ends, is not ready; the probe answers all the same."""
        try:
            return question()
        except Exception as problem:  # noqa: BLE001 — whatever it is, it is told, and "not ready" is the answer
            self._observer.log.write(logging.DEBUG, "not_askable", told(problem))
            return otherwise


def addresses(services: Sequence[Service]) -> dict[str, str]:
    """What the services listen on, by name."""
    return {name: address for service in services for name, address in service.addresses().items()}


def _entrance(limits: LimitSettings, observer: Observer) -> HttpEntrance:
    return HttpEntrance(limits, observer, "probes", limits.http_requests, limits.http_requests_per_address)


def _refused(refusal: Refusal) -> Response:
    return JSONResponse({"detail": refusal.detail}, refusal.code, dict(refusal.headers))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=64)
    except OSError as problem:
        why = os.strerror(problem.errno) if problem.errno and problem.errno > 0 else problem.strerror
        raise SettingsError(f"The probes cannot listen on {host}:{port} ({why}): set another [probes] port.") from None
