"""The watch goes on whatever the worklist does: away, cut off, marked, short, in pages."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from chaos import watch_in
from chaos.sightings import Sightings
from chaos.watch_in import Watch, connected, read_list, read_studies

PATIENCE_S = 20.0


@dataclass
class Script:
    """What the worklist answers: one list after the other, the last one again and again; the same for live streams."""

    lists: list[Any]
    streams: list[str] = field(default_factory=list)
    studies: dict[str, dict[str, Any]] = field(default_factory=dict)
    last_event_ids: list[str | None] = field(default_factory=list)

    @staticmethod
    def next(of: list[Any]) -> Any:
        """The next one."""
        return of.pop(0) if len(of) > 1 else of[0]


class Worklist(BaseHTTPRequestHandler):
    """Plays the script. An answer of None: the connection is cut before a word."""

    script: Script

    def do_GET(self) -> None:
        """One request."""
        path, _, query = self.path.partition("?")
        if path == "/v1/events":
            self._stream()
        elif path == "/v1/worklist":
            answer = self.script.next(self.script.lists)
            self._answer(answer(query) if callable(answer) else answer)
        else:
            found = self.script.studies.get(path.rpartition("/")[2])
            self._answer(found, 200 if found else 404)

    def _stream(self) -> None:
        self.script.last_event_ids.append(self.headers.get("Last-Event-ID"))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.script.next(self.script.streams or [""]).encode())

    def _answer(self, told: Any, code: int = 200) -> None:
        if told is None and code == 200:
            return
        body = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def playing() -> Iterator[Callable[[Script], str]]:
    """Starts a worklist that plays a script; its URL."""
    servers: list[ThreadingHTTPServer] = []

    def play(script: Script) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Playing", (Worklist,), {"script": script}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield play
    for server in servers:
        server.shutdown()
        server.server_close()


def page(*uids: str, status: str = "ok", after: str | None = None) -> dict[str, Any]:
    """One page of the list."""
    common = {"position": 1, "state": "receiving", "closed": False, "images_received": 1, "images_settled": 1}
    return {"status": status, "next": after, "items": [{"study_instance_uid": uid, **common} for uid in uids]}


def live(event_id: str, event: str, uid: str = "a") -> str:
    """One server-sent event."""
    return f"id: {event_id}\nevent: {event}\ndata: {json.dumps({'study_instance_uid': uid})}\n\n"


def watched(url: str, sightings: Sightings, until: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Watches until that is so."""
    monkeypatch.setattr(watch_in, "PERIOD_S", 0.02)
    watch = Watch(url, sightings)
    watch.start()
    try:
        end_s = time.monotonic() + PATIENCE_S
        while not until():
            assert time.monotonic() < end_s, "was never seen"
            time.sleep(0.01)
    finally:
        watch.stop()


def test_a_worklist_that_is_away_or_marked_hides_nothing_from_the_watch(
    playing: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut, rebuilding and without the study: no trouble. Ok and without the study: it has vanished."""
    seen = Sightings(["a"])
    url = playing(Script([page("a"), None, page(status="rebuilding"), page(), page("a")]))
    watched(url, seen, lambda: seen.statuses["ok"] >= 3, monkeypatch)
    assert seen.study("a").vanished == 1
    assert seen.statuses["away"] >= 1
    assert seen.statuses["rebuilding"] == 1


def test_a_study_that_moves_between_two_pages_has_not_vanished(
    playing: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of several pages that lacks it is read again before anybody is accused."""
    seen = Sightings(["a"])
    in_two = [page("b", after="x"), page("c")]
    url = playing(Script([page("a"), *in_two, page("b", after="x"), page("a"), page("a")]))
    watched(url, seen, lambda: seen.statuses["ok"] >= 4, monkeypatch)
    assert seen.study("a").vanished == 0


def test_live_changes_go_on_behind_the_last_one_after_a_lost_connection(
    playing: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half an event is none; the stream is taken up with the last id, and what it repeats is not counted again."""
    seen = Sightings(["a"])
    streams = [live("1", "received") + live("2", "flagged") + "id: 3\nevent: fl", live("2", "flagged"), ": ping\n\n"]
    script = Script([page("a")], streams)
    watched(playing(script), seen, lambda: len(script.last_event_ids) >= 3, monkeypatch)
    assert script.last_event_ids[:3] == [None, "2", "2"]
    assert seen.study("a").told_flagged == 1


def test_a_second_flag_is_counted_unless_the_stream_says_that_it_has_a_gap(
    playing: Callable[[Script], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two flags in one stream are two; a ``reset`` between them may hide a withdrawal."""
    for between, times in (("", 2), ("id: 5\nevent: reset\ndata: {}\n\n", 1)):
        seen = Sightings(["a"])
        script = Script([page("a")], [live("1", "flagged") + between + live("9", "flagged"), ": ping\n\n"])
        watched(playing(script), seen, lambda script=script: len(script.last_event_ids) >= 2, monkeypatch)  # type: ignore[misc]  # bound at once
        assert seen.study("a").told_flagged == times


def test_every_page_of_the_list_and_every_study_is_read(playing: Callable[[Script], str]) -> None:
    """The cursor is given back; a study that the service is sure not to have is None."""
    asked: list[str] = []

    def told(answer: dict[str, Any]) -> Callable[[str], dict[str, Any]]:
        return lambda query: asked.append(query) or answer  # type: ignore[func-returns-value]  # noted on the way

    detail: dict[str, Any] = {
        "study_instance_uid": "a",
        "state": "flagged",
        "reason": None,
        "closed": True,
        "images": [],
        "history": [],
        "notes": [],
    }
    url = playing(Script([told(page("a", after="there")), told(page("b"))], studies={"a": detail}))
    with connected(url) as client:
        listed = read_list(client)
    assert [item.study_instance_uid for item in listed.items] == ["a", "b"]
    assert (listed.pages, listed.ok) == (2, True)
    assert asked == ["limit=1000", "limit=1000&cursor=there"]
    answers = read_studies(url, ["a", "b"])
    assert answers["b"] is None
    assert answers["a"] is not None
    assert answers["a"].state == "flagged"
