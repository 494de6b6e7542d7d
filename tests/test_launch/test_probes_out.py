"""The probe server: able to answer callers, whatever the peers do."""

import threading
from collections.abc import Iterator, Mapping
from io import StringIO

import httpx
import pytest

from contracts.errors import SettingsError
from contracts.hooks import Happening
from launch.log_out import JsonLog
from launch.observe_out import Observer
from launch.probes_out import Probes


class Service:
    """A service whose answers a test sets."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_ready = False
        self.sees: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """See contracts.ports.Service."""
        stop.wait()

    def ready(self) -> bool:
        """Whether it can answer."""
        return self.is_ready

    def peers(self) -> Mapping[str, str]:
        """What it sees."""
        return self.sees

    def addresses(self) -> Mapping[str, str]:
        """Where it listens."""
        return {self.name: "127.0.0.1:1"}


@pytest.fixture
def services() -> list[Service]:
    """Two services of one process."""
    return [Service("scoring"), Service("flagging")]


@pytest.fixture
def observer() -> Observer:
    """Hooks that log to nowhere."""
    return Observer(JsonLog("test", "INFO", StringIO()))


@pytest.fixture
def client(services: list[Service], observer: Observer) -> Iterator[httpx.Client]:
    """A client of the running probe server on a free port."""
    probes = Probes(services, observer, "127.0.0.1", 0)
    probes.start()
    with httpx.Client(base_url=f"http://{probes.address}", trust_env=False) as client:
        yield client
    probes.stop()


def test_ready_only_when_every_service_is(client: httpx.Client, services: list[Service]) -> None:
    """One service that cannot answer yet keeps the process out; live it is all the while."""
    for ready, code in (((False, False), 503), ((True, False), 503), ((True, True), 200)):
        for service, is_ready in zip(services, ready, strict=True):
            service.is_ready = is_ready
        answer = client.get("/ready")
        assert answer.status_code == code
        assert answer.json()["services"] == dict(zip(("scoring", "flagging"), ready, strict=True))
        assert client.get("/live").status_code == 200


def test_a_peer_that_is_away_is_told_and_does_not_make_unready(
    client: httpx.Client, services: list[Service], observer: Observer
) -> None:
    """States come from the services, from what the hooks last heard, and what is known stands over "unknown"."""
    for service in services:
        service.is_ready = True
    services[0].sees = {"triton": "away", "kafka": "unknown"}
    observer.happened(Happening.PEER_UP, 1.0, peer="kafka")
    observer.happened(Happening.PEER_UP, 1.0, peer="redis")
    observer.happened(Happening.PEER_UP, 0.0, peer="redis")
    answer = client.get("/ready")
    assert answer.status_code == 200
    assert answer.json()["peers"] == {"triton": "away", "kafka": "up", "redis": "away"}
    assert answer.json()["addresses"] == {"scoring": "127.0.0.1:1", "flagging": "127.0.0.1:1"}


def test_a_service_that_cannot_be_asked_is_not_ready(client: httpx.Client, services: list[Service]) -> None:
    """While it ends its sockets are gone already: 503 with the rest of the answer, not a 500."""

    def gone() -> bool:
        raise OSError("Bad file descriptor")

    services[0].is_ready = services[1].is_ready = True
    services[0].ready = gone  # type: ignore[method-assign]  # a fault, injected
    services[1].addresses = gone  # type: ignore[method-assign, assignment]  # as above
    answer = client.get("/ready")
    assert answer.status_code == 503
    assert answer.json()["services"] == {"scoring": False, "flagging": True}
    assert answer.json()["addresses"] == {}


def test_metrics_are_served_in_the_text_format(client: httpx.Client, observer: Observer) -> None:
    """What the hooks counted is what Prometheus reads."""
    observer.happened(Happening.RECEIVED, door="dicom", lane="stat")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'triage_images_received_total{door="dicom",lane="stat"} 1.0' in answer.text


def test_a_taken_port_is_a_sentence(client: httpx.Client, services: list[Service], observer: Observer) -> None:
    """Two services on one port is a wrong setting, not a traceback."""
    with pytest.raises(SettingsError, match=r"cannot listen on 127\.0\.0\.1:\d+ \(Address already in use\)"):
        Probes(services, observer, "127.0.0.1", client.base_url.port or 0)
