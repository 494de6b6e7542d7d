"""The service and its store: emptied, killed, back; live events to many, to the late and to the slow."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from contracts.errors import SettingsError
from contracts.findings import StudyState
from contracts.hooks import Happening, Silent, Stage
from contracts.settings import Settings, WorklistSettings
from contracts.worklist import Change, PartitionStatus
from launch.stack.redis_server import RedisServer, redis_binary, valkey_binary
from launch.wiring import worklist as wiring
from tests.conftest import missing, running
from tests.test_worklist.conftest import Serve, Served, serving, settings_for, until
from tests.test_worklist.view_writer import PATIENT_WORDS, Writer, item


@pytest.fixture(params=["redis", "valkey"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A store of this test alone, of each make, to be emptied and killed."""
    binary = {"redis": redis_binary, "valkey": valkey_binary}[request.param]()
    if binary is None:
        missing(f"no {request.param} server is installed")
    yield from running(RedisServer(tmp_path, binary))


class Listener:
    """A reader of the live events: what it has heard, in order."""

    def __init__(self, served: Served, last_event_id: str | None = None) -> None:
        self.heard: list[dict[str, Any]] = []
        self.ended = threading.Event()
        self._url = served.url + "/v1/events"
        self._headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
        self.open = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        assert self.open.wait(20)

    @property
    def told(self) -> list[tuple[str, str]]:
        """Event and study."""
        return [(one["event"], one["data"].get("study_instance_uid", "")) for one in self.heard]

    def _read(self) -> None:
        with httpx.stream("GET", self._url, headers=self._headers, timeout=60) as answer:
            self.open.set()
            one: dict[str, Any] = {}
            for line in answer.iter_lines():
                name, _, value = line.partition(": ")
                if line and name:
                    one[name] = json.loads(value) if name == "data" else value
                elif one:
                    self.heard.append(one)
                    one = {}
        self.ended.set()


def _status(served: Served) -> str:
    answer: str = served.get("/v1/worklist").json()["status"]
    return answer


def test_emptied_store_is_rebuilding_until_every_partition_is_ready(own: RedisServer, prefix: str) -> None:
    """FLUSHALL: never `ok` with an empty list; `ok` again with the last partition, and live readers hear of both."""
    writer = Writer(own.url, prefix)
    writer.ready()
    writer.put(item("1.1"))
    with serving(settings_for(own.url, prefix)) as served:
        until("ok", lambda: _status(served) == "ok")
        listener = Listener(served)
        until("the standing is known", lambda: served.peers() == {"redis": "up"})
        time.sleep(1.2)  # two looks: the first status is behind us
        listener.heard.clear()
        writer.empty()
        answer = served.get("/v1/worklist").json()
        assert (answer["status"], answer["items"]) == ("rebuilding", [])
        assert served.get("/v1/studies/1.1").status_code == 503
        writer.ready([0, 1, 2])
        writer.partition(3, PartitionStatus.REBUILDING)
        writer.put(item("1.1"))
        answer = served.get("/v1/worklist").json()
        assert (answer["status"], len(answer["items"])) == ("rebuilding", 1)
        until("readers hear of the rebuilding", lambda: "rebuilding" in _heard_statuses(listener))
        writer.partition(3, PartitionStatus.READY)
        assert _status(served) == "ok"
        until("readers hear that it is over", lambda: _heard_statuses(listener)[-1:] == ["ok"])
        writer.put(item("1.2"), Change.RECEIVED)
        until("events go on", lambda: ("received", "1.2") in listener.told)


def _heard_statuses(listener: Listener) -> list[str]:
    return [one["data"]["status"] for one in listener.heard if one["event"] == "reset"]


def test_a_fresh_install_is_ok_only_when_all_report(serve: Serve, writer: Writer) -> None:
    """An empty log is `ok` and empty, but not before every partition's owner has said so."""
    with serve() as served:
        assert _status(served) == "rebuilding"
        writer.ready([0, 1, 2])
        assert _status(served) == "rebuilding"
        writer.ready([3])
        answer = served.get("/v1/worklist").json()
    assert (answer["status"], answer["items"], answer["total"]) == ("ok", [], 0)


def test_a_silent_owner_makes_reads_degraded(serve: Serve, writer: Writer) -> None:
    """The list is served, marked, with the partition named; the owner's next beat mends it."""
    writer.ready()
    writer.ready([2], silent_s=31)
    writer.put(item("1.1"))
    with serve() as served:
        answer = served.get("/v1/worklist").json()
        assert (answer["status"], len(answer["items"])) == ("degraded", 1)
        assert "partition 2" in answer["detail"]
        writer.ready([2])
        assert _status(served) == "ok"


def test_a_killed_store_is_served_from_memory_and_marked_until_it_is_back(own: RedisServer, prefix: str) -> None:
    """Killed: the last list, degraded, with its age, in pages and filtered; a study 503; back: ok, and events go on."""
    writer = Writer(own.url, prefix)
    writer.ready()
    writer.put_all([item(f"1.{n}", rank=n, state=StudyState.NOT_FLAGGED) for n in range(5)])
    writer.put(item("1.9", rank=9), Change.RECEIVED)
    with serving(settings_for(own.url, prefix)) as served:
        until("ok", lambda: served.peers() == {"redis": "up"} and _status(served) == "ok")
        listener = Listener(served)
        writer.put(item("1.8", rank=8), Change.RECEIVED)
        until("the tail lives", lambda: ("received", "1.8") in listener.told)
        time.sleep(1.2)  # the look that follows a change has remembered it
        own.kill()
        first = served.get("/v1/worklist", limit=3).json()
        assert first["status"] == "degraded"
        assert first["age_s"] > 0
        assert first["as_of"] == pytest.approx(time.time() - first["age_s"], abs=5)
        rest = served.get("/v1/worklist", limit=30, cursor=first["next"]).json()
        some = served.get("/v1/worklist", state="receiving").json()
        assert [one["position"] for one in (*first["items"], *rest["items"])] == [1, 2, 3, 4, 5, 6, 7]
        assert [one["study_instance_uid"] for one in some["items"]] == ["1.8", "1.9"]
        assert served.get("/v1/studies/1.1").status_code == 503
        until("the peer is seen away", lambda: served.peers() == {"redis": "away"})
        until("readers hear of it", lambda: "degraded" in _heard_statuses(listener))
        own.start()
        until("it is back, and nobody has looked whether it is whole", lambda: _status(served) == "rebuilding")
        writer.ready()
        until("ok again", lambda: _status(served) == "ok")
        writer.put(item("1.7", rank=7), Change.FLAGGED)
        until("events go on", lambda: ("flagged", "1.7") in listener.told)
        assert listener.told.count(("received", "1.8")) == 1


def test_a_store_that_never_answered_is_503_and_the_service_is_ready(tmp_path: Path, prefix: str) -> None:
    """Started before its store: ready, `degraded`, nothing to show; and it comes up by itself with the store."""
    store = RedisServer(tmp_path)
    store.start()
    store.kill()
    try:
        with serving(settings_for(store.url, prefix)) as served:
            answer = served.get("/v1/worklist")
            assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
            assert "items" not in answer.json()
            assert served.get("/v1/studies/1.1").status_code == 503
            listener = Listener(served)
            store.start()
            writer = Writer(store.url, prefix)
            writer.ready()
            until("ok", lambda: served.get("/v1/worklist").json()["status"] == "ok")
            until("readers hear of it", lambda: _heard_statuses(listener)[-1:] == ["ok"])
            writer.put(item("1.1"), Change.RECEIVED)
            until("events", lambda: ("received", "1.1") in listener.told)
    finally:
        store.close()


def test_a_reader_that_comes_back_hears_what_it_missed(serve: Serve, writer: Writer) -> None:
    """`Last-Event-ID` resumes over HTTP: missed changes once, in order, then new ones; with ids and item data."""
    writer.ready()
    with serve() as served:
        ids = [writer.put(item(f"1.{n}", rank=n), Change.RECEIVED) for n in range(5)]
        until("the list", lambda: served.get("/v1/worklist").json()["total"] == 5)
        time.sleep(0.3)  # the tail has them
        listener = Listener(served, ids[1])
        ids.append(writer.put(item("1.0", rank=0), Change.WITHDRAWN))
        until("all of them", lambda: len(listener.heard) >= 4)
    assert [one["id"] for one in listener.heard] == ids[2:]
    assert [one["event"] for one in listener.heard] == ["received", "received", "received", "withdrawn"]
    assert [one["data"]["position"] for one in listener.heard] == [3, 4, 5, 1]
    assert listener.ended.wait(10), "the stop lets live readers go"


def test_a_reader_whose_place_was_trimmed_is_told_to_read_again(serve: Serve, writer: Writer) -> None:
    """Trimmed away: one `reset`, with an id to go on from; then the changes that follow."""
    old = writer.put(item("1.1"), Change.RECEIVED)
    for n in range(5):
        writer.put(item(f"1.{n}"), Change.REVISED)
    writer.client.xtrim(writer.keys.changes, maxlen=2, approximate=False)
    newest = writer.put(item("1.7"), Change.CLOSED)
    with serve() as served:
        until("the tail has begun", lambda: served.peers() == {"redis": "up"})
        time.sleep(0.3)
        listener = Listener(served, old)
        until("the reset", lambda: listener.heard)
        assert (listener.heard[0]["event"], listener.heard[0]["id"]) == ("reset", newest)
        writer.put(item("1.8"), Change.RECEIVED)
        until("what follows", lambda: listener.told[-1] == ("received", "1.8"))


def test_many_readers_share_one_tail(serve: Serve, writer: Writer) -> None:
    """Twenty readers: one blocking read in the store, every change once to each."""
    with serve() as served:
        until("the tail has begun", lambda: served.peers() == {"redis": "up"})
        time.sleep(0.3)
        readers = [Listener(served) for _ in range(20)]
        for n in range(10):
            writer.put(item(f"1.{n}"), Change.RECEIVED)
        expected = [("received", f"1.{n}") for n in range(10)]
        until("all", lambda: all([t for t in r.told if t[0] != "reset"] == expected for r in readers))
        blocked: Any = writer.client.client_list()
        assert len([one for one in blocked if one["cmd"] == "xread"]) == 1


def test_a_reader_that_takes_nothing_is_cut(serve: Serve, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is full: after the send timeout the service closes it, while others go on hearing everything."""
    monkeypatch.setattr("worklist.http_out.SEND_TIMEOUT_S", 0.5)
    gauge = Recorder()
    with serve(gauge) as served, silent_reader(served):
        until("it is counted", lambda: gauge.last(Happening.LIVE_READERS) == 1)
        listener = Listener(served)
        big = item("1.1").model_copy(update={"models": ("m" * 20_000,)})
        for _ in range(400):
            writer.put(big, Change.REVISED)
        until("the other hears all", lambda: listener.told.count(("revised", "1.1")) == 400)
        until("the silent one is cut", lambda: gauge.last(Happening.LIVE_READERS) == 1)
    assert gauge.last(Happening.LIVE_READERS) == 0


@contextmanager
def silent_reader(served: Served) -> Iterator[None]:
    """A connection with a small window that asks for the events and never reads."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host, int(port)))
        connection.sendall(f"GET /v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        yield


class Recorder:
    """Hooks that remember."""

    def __init__(self) -> None:
        self.told: list[tuple[Happening, float, dict[str, str]]] = []
        self.stages: list[tuple[Stage, str]] = []

    def stage(self, stage: Stage, traceparent: str = "") -> AbstractContextManager[None]:
        """Remembers."""
        self.stages.append((stage, traceparent))
        return nullcontext()

    def happened(self, happening: Happening, value: float = 1.0, traceparent: str = "", **labels: str) -> None:
        """Remembers."""
        del traceparent
        self.told.append((happening, value, labels))

    def last(self, happening: Happening) -> float:
        """The newest value."""
        newest = [value for what, value, _ in self.told if what is happening][-1:]
        return newest[0] if newest else 0.0


def test_requests_are_staged_and_faults_are_counted_without_content(
    serve: Serve, writer: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    """SERVE with the caller's trace; rubbish in the store is counted as a fault; no log line holds patient data."""
    caplog.set_level(logging.DEBUG)
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    hooks = Recorder()
    writer.ready()
    writer.put(item("1.1"))
    writer.client.hset(writer.keys.study("1.2"), "item", '{"patient": "Specimen^Alice"}')
    writer.client.zadd(writer.keys.queue, {"1.2": 1.0})
    with serve(hooks) as served:
        served.get("/v1/worklist", {"traceparent": trace})
        served.get("/v1/worklist", {"traceparent": "Specimen^Alice"})
        assert served.get("/v1/studies/1.2").status_code == 503
        listener = Listener(served)
        writer.put(item("1.3"), Change.RECEIVED)
        until("an event", lambda: listener.heard)
    assert hooks.stages[:2] == [(Stage.SERVE, trace), (Stage.SERVE, "")]
    assert {labels["where"] for what, _, labels in hooks.told if what is Happening.FAULT} == {
        "worklist.item",
        "worklist.study",
    }
    assert not [word for word in (*PATIENT_WORDS, "1.3") if word in caplog.text]


def test_an_unexpected_fault_is_answered_counted_and_not_told(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever breaks inside, the caller gets a 500 in the usual shape and no traceback leaves with stored values."""

    async def broken(*_: object) -> None:
        raise RuntimeError("Specimen^Alice")

    monkeypatch.setattr("worklist.reading.Reading.worklist", broken)
    hooks = Recorder()
    with serve(hooks) as served:
        answer = served.get("/v1/worklist")
    assert (answer.status_code, answer.json()["status"]) == (500, "degraded")
    assert "Specimen" not in answer.text + caplog.text
    assert {"where": "worklist.http"} in [labels for what, _, labels in hooks.told if what is Happening.FAULT]


def test_settings_that_would_show_patients_to_strangers_stop_the_start() -> None:
    """The wiring refuses at once, before anything listens."""
    with pytest.raises(SettingsError, match="no token is set"):
        wiring.build(Settings(worklist=WorklistSettings(host="192.0.2.1")), Silent())


def test_a_port_that_is_taken_is_a_sentence(redis_server: RedisServer, prefix: str) -> None:
    """Somebody else listens there: a SettingsError that names the settings."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_for(redis_server.url, prefix)
        port = taken.getsockname()[1]
        taken_settings = settings.model_copy(update={"worklist": WorklistSettings(port=port)})
        (service,) = wiring.build(taken_settings, Silent())
        with pytest.raises(SettingsError, match=rf"worklist\.port: cannot listen on 127\.0\.0\.1:{port}"):
            service.run(threading.Event())
    assert not service.ready()


def test_other_machines_may_come_with_a_token(redis_server: RedisServer, prefix: str) -> None:
    """Bound to every address once a token is set; the token is asked for."""
    token = "reader-token-0123456789"  # noqa: S105  # the test's own
    settings = settings_for(redis_server.url, prefix, host="0.0.0.0", reader_token=SecretStr(token))  # noqa: S104  # meant
    with serving(settings) as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104  # asked, not bound
        assert httpx.get(url + "/v1/worklist").status_code == 401
        headers = {"Authorization": f"Bearer {token}", "Host": "worklist.hospital.example"}
        assert httpx.get(url + "/v1/worklist", headers=headers).status_code == 200
