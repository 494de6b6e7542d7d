"""The HTTP API (FastAPI), with its OpenAPI page at /docs from files of the installation: nothing comes from a network.

Every answer carries the notice, in its body and in the header ``X-Triage-Notice``. Times are epoch seconds (UTC), as
they are stored: sortable, and without a zone to get wrong.
"""

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Receive, Scope, Send

from contracts.errors import DecodeError
from contracts.findings import StudyState, Urgency
from contracts.hooks import Happening, Hooks
from contracts.ports import Entrance
from contracts.settings import WorklistSettings
from contracts.worklist import NOTICE, QueueStatus
from worklist import answers
from worklist.access import Role, role_of, visible
from worklist.cursor import Cursor
from worklist.doorway_out import Doorway
from worklist.live import Hub, Told, events
from worklist.reading import NoAnswer, Reading
from worklist.view import View

PAGE_MAX = 1000  # items of one answer: about 2 MB
UID_CHARS_MAX = 256  # a UID has 64 (PS3.5 9.1); objects that break the rule are taken too, and found again
HEARTBEAT_S = 10.0  # a comment that often keeps proxies from closing an idle stream
SEND_TIMEOUT_S = 15.0  # a live reader that takes nothing for that long is cut
EVENTS_PATH = "/v1/events"

DESCRIPTION = f"""**{NOTICE}**

The urgent study is read first: the worklist is ordered by rank and re-ordered while images still arrive. No study
leaves the normal queue. All times are seconds since 1970-01-01 UTC.

`status` says how far an answer can be trusted. While it is not `ok`, an absent study is not a normal study.
"""
EVENTS_DESCRIPTION = """Server-sent events. `event` is `received`, `flagged`, `revised`, `withdrawn`, `closed` or
`action`; `data` is the study's ITEM with its present position; `id` is to be sent as `Last-Event-ID` after a lost
connection (browsers do so by themselves), and what was missed is told first.

Connect first, then read `/v1/worklist`: so nothing is missed between the two.

`event: reset` says that changes may have been missed, or that the status is another now: read `/v1/worklist` again.
Its data is `{"status", "detail", "notice"}`. A comment every 10 s keeps the connection; a reader that does not read is
cut and may come back with its `Last-Event-ID`."""

_PROBLEM = {"model": answers.Problem}
_BEARER = HTTPBearer(auto_error=False, description="Not needed on loopback while no token is set.")

# sse-starlette writes every chunk, so patient data, to its debug log: never, whatever the level of the root logger.
logging.getLogger("sse_starlette.sse").setLevel(logging.INFO)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes need."""

    settings: WorklistSettings
    reading: Reading
    view: View
    hub: Hub
    hooks: Hooks
    entrance: Entrance


def make_app(desk: Desk) -> FastAPI:
    """The application; ``Doorway`` wraps it."""
    app = FastAPIOffline(
        title="Lesion Triage worklist",
        version="1",
        description=DESCRIPTION,
        redoc_url=None,
        swagger_ui_parameters={"validatorUrl": None},  # the validator is a public web site
        swagger_ui_oauth2_redirect_url="/docs/oauth2-redirect",
    )
    _add_errors(app, desk)
    _add_list(app, desk)
    _add_study(app, desk)
    _add_events(app, desk)
    app.add_api_route("/", lambda: RedirectResponse("/docs"), include_in_schema=False)
    app.add_middleware(Doorway, settings=desk.settings, hooks=desk.hooks, entrance=desk.entrance, unstaged=EVENTS_PATH)
    return app


def _role_dependency(desk: Desk) -> object:
    async def role(request: Request, _: Annotated[object, Depends(_BEARER)] = None) -> Role:
        found = role_of(desk.settings, request.headers.get("authorization"))
        if found is None:
            raise HTTPException(401, "A bearer token is needed.", {"WWW-Authenticate": "Bearer"})
        return found

    return Depends(role)


def _add_list(app: FastAPI, desk: Desk) -> None:
    default_limit = min(desk.settings.page_size, PAGE_MAX)

    @app.get(
        "/v1/worklist",
        response_model=answers.WorklistAnswer,
        responses={401: _PROBLEM, 422: _PROBLEM, 503: _PROBLEM},
        summary="The worklist in reading order",
        tags=["worklist"],
    )
    async def worklist(
        role: Annotated[Role, _role_dependency(desk)],
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX, description="items of one answer")] = default_limit,
        cursor: Annotated[str | None, Query(description="`next` of the answer before", max_length=1024)] = None,
        state: Annotated[list[StudyState] | None, Query(description="only these states; may be repeated")] = None,
        urgency: Annotated[list[Urgency] | None, Query(description="only these classes; may be repeated")] = None,
    ) -> Response:
        """`position` is the place in the whole queue, whatever the filters and the page; 1 is read first."""
        query = answers.Query(
            limit=limit,
            after=Cursor.decode(cursor) if cursor else None,
            states=frozenset(state or ()),
            urgencies=frozenset(urgency or ()),
        )
        answer = await desk.reading.worklist(query)
        return _json(answer.model_copy(update={"items": tuple(visible(item, role) for item in answer.items)}))


def _add_study(app: FastAPI, desk: Desk) -> None:
    @app.get(
        "/v1/studies/{study_instance_uid}",
        response_model=answers.StudyAnswer,
        responses={401: _PROBLEM, 404: _PROBLEM, 422: _PROBLEM, 503: _PROBLEM},
        summary="One study, with its images and history",
        tags=["worklist"],
    )
    async def study(
        role: Annotated[Role, _role_dependency(desk)],
        study_instance_uid: Annotated[str, Path(max_length=UID_CHARS_MAX)],
    ) -> Response:
        """404 only while the view is complete; 503 while it is not and the study is not in it: then nobody knows."""
        return _json(visible(await desk.reading.study(study_instance_uid), role))


def _add_events(app: FastAPI, desk: Desk) -> None:
    @app.get(
        EVENTS_PATH,
        responses={
            200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "the stream"},
            401: _PROBLEM,
            422: _PROBLEM,
            503: _PROBLEM,
        },
        response_class=Response,
        summary="Live changes",
        description=EVENTS_DESCRIPTION,
        tags=["worklist"],
    )
    async def live(
        role: Annotated[Role, _role_dependency(desk)],
        last_event_id: Annotated[str | None, Header(description="the last `id` that was seen")] = None,
    ) -> Response:
        if desk.hub.readers >= desk.settings.live_readers or desk.hub.closed:
            return _problem(503, desk.reading.standing.status, "No room for another live reader now; ask again later.")
        told = events(desk.hub, desk.view, desk.reading.standing, last_event_id)
        return LiveResponse(_sent(desk, role, told), ping=HEARTBEAT_S, send_timeout=SEND_TIMEOUT_S, sep="\n")


class LiveResponse(EventSourceResponse):
    """An event stream whose reader, when it takes nothing, is cut without a word."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See EventSourceResponse."""
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            return


async def _sent(desk: Desk, role: Role, told: AsyncIterator[Told]) -> AsyncIterator[ServerSentEvent]:
    _count(desk, 1)
    try:
        async for one in told:
            yield _server_sent(one, role)
    finally:
        _count(desk, -1)


def _count(desk: Desk, change: int) -> None:
    desk.hub.readers += change
    desk.hooks.happened(Happening.LIVE_READERS, float(desk.hub.readers))


def _server_sent(one: Told, role: Role) -> ServerSentEvent:
    return ServerSentEvent(one.data[role], id=one.id, event=one.event)


def _add_errors(app: FastAPI, desk: Desk) -> None:
    """Every problem in one shape; never with what the caller sent, and never with what is stored."""

    @app.exception_handler(NoAnswer)
    async def no_answer(_: Request, problem: NoAnswer) -> Response:
        if problem.certain:
            return _problem(404, problem.standing.status, "There is no such study.")
        return _problem(503, problem.standing.status, problem.standing.detail)

    @app.exception_handler(DecodeError)
    async def wrong_cursor(_: Request, __: DecodeError) -> Response:
        return _problem(422, desk.reading.standing.status, "cursor: not one that this service gave.")

    @app.exception_handler(RequestValidationError)
    async def wrong_query(_: Request, problem: RequestValidationError) -> Response:
        told = "; ".join(f"{error['loc'][1]}: {error['msg']}" for error in problem.errors())
        return _problem(422, desk.reading.standing.status, told)

    @app.exception_handler(StarletteHTTPException)
    async def refused(_: Request, problem: StarletteHTTPException) -> Response:
        answer = _problem(problem.status_code, desk.reading.standing.status, str(problem.detail))
        answer.headers.update(problem.headers or {})
        return answer


def _problem(code: int, status: QueueStatus, detail: str) -> Response:
    return _json(answers.Problem(status=status, detail=detail), code)


def _json(answer: answers.Answer | answers.StudyAnswer, code: int = 200) -> Response:
    return Response(answer.model_dump_json(), code, media_type="application/json")
