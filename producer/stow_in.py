"""STOW-RS (PS3.18 10.5): instances in, streamed, settled while the rest of the request is still coming."""

import asyncio
import socket
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from contracts.deadline import Deadline
from contracts.errors import TriageError
from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.settings import LimitSettings, ProducerSettings
from producer.http_in import CONNECTION, GoingAway, HttpGuards, Late, guarded_protocol, pieces
from producer.intake import Door, Received, is_uid
from producer.memory import Budget, Room
from producer.multipart import Malformed, Part, Parts, TooMany, WrongMediaType, boundary_of
from producer.places import Places, Seats
from producer.reception import Outcome, Reception
from producer.stamp_call import monotonic_s, now_s, traceparent
from producer.statuses import HTTP_UNAVAILABLE, http_status
from producer.stow_answer import answer, encode, media_type_for

THREADS = 8  # each waits for the broker; one core acknowledges some 170 images/s to a single one
PARTS_IN_HAND = 4  # of one request: the others' turn comes too
BACKLOG = 128  # connections that wait to be accepted
RETRY_AFTER_S = 5
GOODBYE_S = 5.0  # at the end: how long bodies may still come before their requests get 503
STOPPED_S = 2.0  # and how long the server gets for its answers, then


class TooLarge(TriageError):
    """The body goes over ``stow_max_body_bytes``: 413."""


# What is wrong with a request → its status, and how the sentence begins. What is not here is 400.
_STATUS_OF: dict[type[Exception], tuple[int, str]] = {
    WrongMediaType: (415, "Not taken: "),
    TooLarge: (413, "A request may hold "),
    TooMany: (413, "A request may hold "),
    Late: (408, "The request came too slowly: "),
}


class StowDoor:
    """The HTTP listener. ``start`` binds and returns; ``close`` finishes the requests in progress."""

    name = "stow"

    def __init__(
        self,
        settings: ProducerSettings,
        reception: Reception,
        budget: Budget,
        hooks: Hooks,
        limits: LimitSettings | None = None,
    ) -> None:
        self._settings, self._reception, self._budget, self._hooks = settings, reception, budget, hooks
        self._limits = limits or LimitSettings()
        self._places = Places(_seats(self._limits))
        self._guards = HttpGuards(self._limits, self._places, self._refused, self._leaving)
        self._end_by: Deadline | None = None
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="triage-stow")
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        self._socket = _listening(self._settings.stow_host, self._settings.stow_port)
        self._server = uvicorn.Server(_config(self.app(), self._settings.network_timeout_s, self._guards))
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="triage-stow-http")
        self._thread.daemon = True
        self._thread.start()

    def addresses(self) -> Mapping[str, str]:
        """The base URL, once started."""
        if self._socket is None:
            return {}
        host, port = self._socket.getsockname()[:2]
        return {"stow": f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"}

    def close(self, timeout_s: float) -> None:
        """1. No new request. 2. Bodies may still come for a while. 3. Those in progress get that long."""
        if self._server is None or self._thread is None:
            return
        self._end_by = Deadline.after(min(GOODBYE_S, timeout_s / 2), monotonic_s)
        self._server.config.timeout_graceful_shutdown = max(1, int(timeout_s))
        self._server.should_exit = True
        self._thread.join(timeout_s + STOPPED_S)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def app(self) -> Starlette:
        """The routes (PS3.18 10.5.1)."""
        paths = ("/studies", "/studies/{study}")
        return Starlette(routes=[Route(path, self._store, methods=["POST"]) for path in paths])

    def _leaving(self) -> bool:
        return self._end_by is not None and self._end_by.expired()

    def _refused(self, reason: Reason) -> None:
        self._hooks.happened(Happening.REFUSED, door=Door.STOW.value, reason=reason.value)

    async def _store(self, request: Request) -> Response:
        """A table of what can be wrong before, during and after the body."""
        if not self._places.take(request.scope[CONNECTION]):
            self._refused(Reason.TOO_MANY)
            return _later("Too many requests at once.")
        media_type = media_type_for(request.headers.get("accept", ""))
        if media_type is None:
            return _sentence(406, "The answer can be application/dicom+json or application/dicom+xml.")
        try:
            return _answered(await self._outcomes(request), media_type)
        except (TriageError, ClientDisconnect) as problem:
            return self._told(problem)
        except Exception:  # a fault of ours: counted here, told as 500 by Starlette
            self._hooks.happened(Happening.FAULT, where="stow")
            raise

    def _told(self, problem: Exception) -> Response:
        if isinstance(problem, Late):
            self._refused(Reason.TOO_SLOW)
        if isinstance(problem, GoingAway):
            return _later(f"{problem}.")
        status, begin = _STATUS_OF.get(type(problem), (400, "The body cannot be read: "))
        return _sentence(status, f"{begin}{problem or type(problem).__name__}.")

    async def _outcomes(self, request: Request) -> list[Outcome]:
        """Parts are taken as they finish, a few at a time, and answered in the order they came."""
        study = _study_of(request)
        boundary = boundary_of(request.headers.get("content-type", ""))
        self._check_length(int(request.headers.get("content-length", 0)))
        share = self._budget.of(request.client.host if request.client else "")
        parts = Parts(boundary, self._reception.limits.largest_bytes, share, self._limits)
        turn = asyncio.Semaphore(PARTS_IN_HAND)
        tasks: list[asyncio.Task[Outcome]] = []
        size_bytes = 0
        try:
            async for piece in pieces(request, self._guards):
                size_bytes += len(piece)
                self._check_length(size_bytes)
                for part in parts.feed(piece):
                    await turn.acquire()
                    tasks.append(asyncio.create_task(self._settled(part, study, turn, share)))
            parts.finish()
        finally:
            parts.abandon()
            outcomes = await asyncio.gather(*tasks)
        if not outcomes:
            raise Malformed("no part")
        return outcomes

    def _check_length(self, size_bytes: int) -> None:
        if size_bytes > self._settings.stow_max_body_bytes:
            raise TooLarge(f"{self._settings.stow_max_body_bytes} bytes")

    async def _settled(self, part: Part, study: str, turn: asyncio.Semaphore, share: Room) -> Outcome:
        received = Received(part.content, Door.STOW, "stow", now_s(), traceparent(), study_instance_uid=study)
        try:
            if part.refused is not None:
                return self._reception.refuse(received, part.refused)
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._reception.take, received)
        finally:
            share.give(len(part.content))
            turn.release()


def _study_of(request: Request) -> str:
    study = request.path_params.get("study", "")
    if study and not is_uid(study):
        raise Malformed("the study in the path is no UID")
    return str(study)


def _answered(outcomes: list[Outcome], media_type: str) -> Response:
    status = http_status([outcome.reason for outcome in outcomes])
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == HTTP_UNAVAILABLE else {}
    return Response(encode(answer(outcomes), media_type), status, headers, media_type)


def _later(text: str) -> Response:
    return PlainTextResponse(text, HTTP_UNAVAILABLE, {"Retry-After": str(RETRY_AFTER_S)})


def _seats(limits: LimitSettings) -> Seats:
    """HTTP has no titles: an address is one."""
    of_one = limits.http_requests_per_address
    return Seats(limits.unasked_connections, limits.http_requests, of_one, of_one)


def _sentence(status: int, text: str) -> Response:
    return PlainTextResponse(text, status)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=BACKLOG, reuse_port=False)


def _config(app: Starlette, timeout_s: float, guards: HttpGuards) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        http=guarded_protocol(guards),
        ws="none",
        h11_max_incomplete_event_size=guards.limits.http_head_bytes,
        timeout_keep_alive=int(min(timeout_s, 30)),
    )
