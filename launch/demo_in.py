"""The demo's eyes: the worklist and its live events over HTTP, as any reader of the API would use them."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import httpx

from contracts.errors import PeerAway, PeerRefused

_ANSWER_S = 5.0  # one answer of the list
_SILENT_S = 30.0  # the stream has a heartbeat every 10 s
_AGAIN_S = 0.5  # before a lost stream is opened again
_PEER = "worklist"

OnEvent = Callable[[str, Mapping[str, Any]], None]


class WorklistReader:
    """Reads ``/v1``. Raises PeerAway or PeerRefused."""

    def __init__(self, url: str, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=url, headers=headers, timeout=_ANSWER_S, trust_env=False)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._client.close()

    def worklist(self) -> tuple[str, list[Mapping[str, Any]]]:
        """Status, and every item in reading order."""
        items: list[Mapping[str, Any]] = []
        cursor: str | None = ""
        status = ""
        while cursor is not None:
            answer = self._get("/v1/worklist", {"cursor": cursor, "limit": "1000"} if cursor else {"limit": "1000"})
            status = status or str(answer["status"])
            items += answer["items"]
            cursor = answer["next"]
        return status, items

    def study(self, uid: str) -> Mapping[str, Any]:
        """One study with its images and history."""
        return self._get(f"/v1/studies/{uid}", {})

    def follow(self, on_event: OnEvent, limit_s: float) -> None:
        """Hands every live event on, from a thread; returns once the stream is open. Raises PeerAway."""
        opened = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(on_event, opened), name="events", daemon=True)
        self._thread.start()
        if not opened.wait(limit_s):
            raise PeerAway(_PEER, "the live events do not open")

    def _get(self, path: str, query: Mapping[str, str]) -> Any:
        try:
            answer = self._client.get(path, params=dict(query))
        except httpx.HTTPError as problem:
            raise PeerAway(_PEER, type(problem).__name__) from None
        if answer.is_server_error:
            raise PeerAway(_PEER, f"{path} answered {answer.status_code}")
        if answer.is_error:
            raise PeerRefused(_PEER, f"{path} answered {answer.status_code}")
        return answer.json()

    def _follow(self, on_event: OnEvent, opened: threading.Event) -> None:
        last = ""
        while not self._stop.is_set():
            try:
                for seen, event, data in self._stream(last, opened):
                    last = seen
                    on_event(event, data)
            except (httpx.HTTPError, RuntimeError):
                # Lost, or the client was closed: it is opened again unless it was told to stop.
                self._stop.wait(_AGAIN_S)

    def _stream(self, last: str, opened: threading.Event) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        headers = {"Last-Event-ID": last} if last else {}
        timeout = httpx.Timeout(_ANSWER_S, read=_SILENT_S)
        with self._client.stream("GET", "/v1/events", headers=headers, timeout=timeout) as answer:
            answer.raise_for_status()
            opened.set()
            yield from server_sent(answer.iter_lines())


def server_sent(lines: Iterable[str]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(id, event, data) of each event of a ``text/event-stream``; comments are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line and name:
            joined = f"{fields['data']}\n" if name == "data" and "data" in fields else ""
            fields[name] = joined + value.removeprefix(" ")
        elif not line and "data" in fields:
            yield fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"])
            fields = {"id": fields.get("id", "")}
