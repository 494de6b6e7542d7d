"""The producer as one service: addresses, readiness, a start that must fail, and many senders at once."""

import socket
import threading
import time
from pathlib import Path

import pytest

from contracts.errors import PeerAway, SettingsError
from contracts.hooks import Happening
from producer import service as producer_service
from producer.broker_call import BrokerWatch
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import Counting, wait_until, written
from tests.test_producer.senders import store

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]


class Switched:
    """A log that is up when the test says so."""

    partitions = 1

    def __init__(self) -> None:
        self.is_up = True

    def up(self) -> bool:
        """As switched."""
        return self.is_up


def test_addresses_name_every_door(start: Start, tansu: str, tmp_path: Path) -> None:
    """What ``triage local --json`` prints: host:port for DICOM, a URL for STOW, a path for the folder."""
    with start(tansu, folder=str(tmp_path)) as producer:
        found = producer.service.addresses()
        assert found == {
            "dicom": f"127.0.0.1:{producer.dicom[1]}",
            "stow": producer.stow,
            "folder": str(tmp_path),
        }
        assert producer.service.peers() == {"kafka": "up", "topics": "up"}


def test_ready_comes_without_a_broker_after_a_grace(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender gets 0xA700 rather than a closed port (design decision 13)."""
    monkeypatch.setattr(producer_service, "START_GRACE_S", 0.5)
    began = time.monotonic()
    with start("127.0.0.1:1", broker_away=True) as producer:
        assert producer.service.ready()
        assert time.monotonic() - began >= 0.5
        assert producer.service.peers() == {"kafka": "away", "topics": "unknown"}


def test_topics_that_are_not_durable_stop_the_start_where_that_is_asked(start: Start, tansu: str) -> None:
    """``require_durable`` on a broker that keeps nothing: a sentence, and no producer."""
    with start(tansu, kafka={"require_durable": True, "memory_only": True}) as producer:
        wait_until(lambda: not producer.thread.is_alive(), 30)
        assert isinstance(producer.failure[0], SettingsError)
        assert not producer.service.ready()


def test_a_port_that_is_taken_stops_the_start(start: Start, tansu: str) -> None:
    """Not silently another port, and not a producer with half its doors."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with start(tansu, stow_port=port) as producer:
            wait_until(lambda: not producer.thread.is_alive(), 30)
            assert isinstance(producer.failure[0], OSError)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(producer.dicom, timeout=2)


def test_warnings_about_topics_are_told_and_shown(start: Start, tansu: str) -> None:
    """A memory-only broker is said to be one, in the probe's JSON and as a counted fault."""
    with start(tansu, kafka={"memory_only": True}) as producer:
        assert "nothing survives a restart" in producer.service.peers()["topics"]
        assert {"where": "topics"} in producer.hooks.labels_of(Happening.FAULT)


def test_the_watch_tries_until_topics_are_there_and_tells_of_every_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Topics are made once the broker comes; whenever it is away again, ``lost`` is called."""
    monkeypatch.setattr("producer.broker_call.RETRY_S", 0.01)
    answers = iter([PeerAway("kafka"), PeerAway("kafka"), None])
    log, losses, stop = Switched(), [], threading.Event()

    def ensure() -> list[str]:
        problem = next(answers)
        if problem is not None:
            raise problem
        return []

    watch = BrokerWatch(ensure, log, Counting(), lambda: losses.append(1))  # type: ignore[arg-type]  # only up() is asked
    thread = threading.Thread(target=watch.run, args=(stop,))
    thread.start()
    wait_until(watch.checked, 5)
    assert losses == []
    log.is_up = False
    wait_until(lambda: bool(losses), 5)
    stop.set()
    thread.join(5)


def test_twenty_senders_at_once_are_all_served(start: Start, tansu: str) -> None:
    """Each association waits for its own acknowledgement; none waits for another's."""
    images = [ct() for _ in range(20)]
    payloads = [part10(image) for image in images]
    statuses: list[int] = []
    with start(tansu) as producer:
        senders = [
            threading.Thread(target=lambda payload=payload: statuses.append(store(producer.dicom, payload)))
            for payload in payloads
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(60)
        log = written(producer.settings, 20)
        wait_until(lambda: told_associations(producer.hooks) == 0, 10)
    assert statuses == [0] * 20
    assert {scan.headers.sop_instance_uid for scan in log.scans} == {image.SOPInstanceUID for image in images}


def told_associations(hooks: Counting) -> float:
    """The gauge's last value."""
    return [value for happening, value, _ in hooks.told if happening is Happening.ASSOCIATIONS][-1]


class Recording:
    """A door, a watch and a log in one: remembers in which order they were closed, and who was ready then."""

    name = "recording"

    def __init__(self) -> None:
        self.order: list[tuple[str, bool]] = []
        self.service: producer_service.ProducerService | None = None

    def start(self) -> None:
        """Opens nothing."""

    def addresses(self) -> dict[str, str]:
        """None."""
        return {}

    def peers(self) -> dict[str, str]:
        """None."""
        return {}

    def checked(self) -> bool:
        """At once."""
        return True

    def run(self, stop: threading.Event) -> None:
        """In the middle of a question to the broker that takes for ever."""
        del stop
        threading.Event().wait(60)

    def close(self, timeout_s: float) -> None:
        """As a door, and as the log."""
        assert self.service is not None
        self.order.append((f"{timeout_s:.0f}", self.service.ready()))


def test_readiness_ends_before_a_door_closes_and_no_question_to_the_broker_is_waited_for() -> None:
    """The order of the end: not ready, doors, log; also while the watch is stuck."""
    recording = Recording()
    service = producer_service.ProducerService([recording], recording, recording, 9.0)  # type: ignore[arg-type]  # what is asked of it, it has
    recording.service = service
    stop = threading.Event()
    thread = threading.Thread(target=service.run, args=(stop,), daemon=True)
    thread.start()
    wait_until(service.ready, 5)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()
    assert [ready for _, ready in recording.order] == [False, False]
