"""SIGTERM at any moment: everything acknowledged is on the log, and the process ends by itself, in time, with 0."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from launch.stack.tansu import Tansu
from tests.test_producer.hostile import associate, associated, connect, pdu
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import settings_of, wait_until, written
from tests.test_producer.senders import association, files, storescu
from tests.test_producer.service_process import Process, producer_process
from tests.test_producer.test_multipart import body
from tests.test_producer.test_stow import MULTIPART

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

CT = (CTImageStorage, ExplicitVRLittleEndian)
ACK_S = 6.0
LIMIT_S = 2 * ACK_S + 20.0  # launch gives it twice the wait for an acknowledgement, never less than 20 s, and 5 s more
SEEDS = (1, 2, 3)


def started(bootstrap: str, prefix: str, folder: Path, **doors: Any) -> Any:
    """A producer process whose waits for the broker are short."""
    return producer_process(settings_of(bootstrap, prefix, {"ack_timeout_s": ACK_S}, {}, **doors), folder)


def ends_well(process: Process) -> None:
    """Exit code 0, within the limit, and it says so itself."""
    code, took_s = process.ended()
    assert code == 0, process.log()[-3000:]
    assert took_s < LIMIT_S
    stopped = process.told("stopped")
    assert stopped is not None
    assert stopped["clean"] is True


class Sender(threading.Thread):
    """Sends images over one association after the other until told to stop; knows which got Success."""

    def __init__(self, address: tuple[str, int], stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._address, self._stop_asked = address, stop
        self.acknowledged: list[str] = []
        self.statuses: set[int] = set()

    def run(self) -> None:
        """Until told to stop, or nobody answers."""
        with suppress(RuntimeError, OSError):
            while not self._stop_asked.is_set() and self._one_association():
                pass

    def _one_association(self) -> bool:
        with association(self._address, CT) as peer:
            for _ in range(50):
                image = ct()
                part10(image)
                if not peer.is_established or self._stop_asked.is_set():
                    return False
                status = peer.send_c_store(image).get("Status")
                if status is None:
                    return False
                self.statuses.add(int(status))
                if status == 0:
                    self.acknowledged.append(image.SOPInstanceUID)
        return True


@pytest.mark.parametrize("seed", SEEDS)
def test_sigterm_under_load_loses_nothing_acknowledged(
    tansu: str, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    """Pynetdicom and storescu send, the signal comes at a moment that the seed chooses."""
    dice = random.Random(seed)
    stop = threading.Event()
    with started(tansu, topic_prefix, tmp_path / "producer") as process:
        senders = [Sender(process.dicom, stop) for _ in range(3)]
        for sender in senders:
            sender.start()
        scu = storescu(process.dicom, files(tmp_path, [ct() for _ in range(40)]), "-v")
        wait_until(lambda: any(sender.acknowledged for sender in senders), 60)
        time.sleep(dice.uniform(0.0, 1.5))
        process.ask_to_end()
        ends_well(process)
        stop.set()
        told = scu.communicate(timeout=60)[0]
        for sender in senders:
            sender.join(30)
    acknowledged = {uid for sender in senders for uid in sender.acknowledged}
    log = written(process.settings, len(acknowledged) + told.count("Success"), patience_s=30)
    assert acknowledged
    assert set().union(*(sender.statuses for sender in senders)) <= {0x0000, 0xA700}
    assert acknowledged <= {scan.headers.sop_instance_uid for scan in log.scans}
    assert acknowledged <= {event.sop_instance_uid for event in log.arrived}
    assert len(log.scans) >= len(acknowledged) + told.count("Success")


def idle(stack: ExitStack, process: Process) -> None:
    """Three associations that say nothing more."""
    for _ in range(3):
        stack.enter_context(associated(process.dicom))


def silent(stack: ExitStack, process: Process) -> None:
    """Connections that never said anything, at both doors."""
    for _ in range(5):
        stack.enter_context(connect(process.dicom))
        stack.enter_context(connect(_stow(process)))


def dripping(stack: ExitStack, process: Process) -> None:
    """A request, and a PDU of an association, that come byte by byte."""
    asked, unasked = associated(process.dicom), connect(process.dicom)
    for peer, said in ((asked, pdu(0x04, bytes(60_000))), (unasked, associate())):
        peer.sendall(said[:7])
        _keep_sending(stack.enter_context(peer), said[7:])


def uploading(stack: ExitStack, process: Process) -> None:
    """A STOW body that goes on and on."""
    peer = stack.enter_context(connect(_stow(process)))
    whole = body([part10(ct()), bytes(100_000)])
    lines = ("POST /studies HTTP/1.1", "Host: x", f"Content-Type: {MULTIPART}", f"Content-Length: {len(whole)}")
    peer.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + whole[:5000])
    _keep_sending(peer, whole[5000:])


def _stow(process: Process) -> tuple[str, int]:
    host, _, port = process.addresses["stow"].removeprefix("http://").rpartition(":")
    return host, int(port)


def _keep_sending(peer: Any, said: bytes) -> None:
    def drip() -> None:
        with suppress(OSError):
            for at in range(len(said)):
                peer.sendall(said[at : at + 1])
                time.sleep(0.2)

    threading.Thread(target=drip, daemon=True).start()


@pytest.mark.parametrize("peers", [idle, silent, dripping, uploading])
def test_sigterm_ends_it_whatever_its_peers_do(
    tansu: str, topic_prefix: str, tmp_path: Path, peers: Callable[[ExitStack, Process], None]
) -> None:
    """Nobody who is idle, silent or slow keeps it from its end."""
    with started(tansu, topic_prefix, tmp_path / "producer") as process, ExitStack() as stack:
        peers(stack, process)
        time.sleep(0.5)
        process.ask_to_end()
        ends_well(process)


def test_sigterm_while_the_broker_is_away(topic_prefix: str, tmp_path: Path) -> None:
    """A store that waits for an acknowledgement is answered 0xA700 or cut off, never Success; the end comes in time."""
    part = Tansu(tmp_path / "tansu")
    part.start()
    statuses: list[int] = []
    try:
        with started(part.bootstrap, topic_prefix, tmp_path / "producer") as process:
            address = process.dicom
            with association(address, CT) as peer:
                image = ct()
                part10(image)
                assert peer.send_c_store(image).Status == 0
                part.kill()

                def wait_for_it() -> None:
                    status = peer.send_c_store(image2).get("Status")
                    statuses.append(int(status) if status is not None else -1)

                image2 = ct()
                part10(image2)
                waiting = threading.Thread(target=wait_for_it, daemon=True)
                waiting.start()
                time.sleep(0.3)
                process.ask_to_end()
                ends_well(process)
                waiting.join(20)
    finally:
        part.close()
    assert statuses in ([0xA700], [-1])


@pytest.mark.parametrize("seed", SEEDS)
def test_sigterm_during_start(topic_prefix: str, tmp_path: Path, seed: int) -> None:
    """From its first line on, with no broker to be found: it ends at once, and cleanly."""
    with started("127.0.0.1:1", topic_prefix, tmp_path / "producer") as process:
        process.wait_for("started")
        time.sleep(random.Random(seed).uniform(0.0, 2.0))
        process.ask_to_end()
        ends_well(process)


def test_readiness_goes_first(tansu: str, topic_prefix: str, tmp_path: Path) -> None:
    """While an association is still being finished, the probe already says that nobody should come."""
    with started(tansu, topic_prefix, tmp_path / "producer") as process, associated(process.dicom):
        url = f"http://{process.addresses['probes']}/ready"
        assert httpx.get(url, trust_env=False).status_code == 200
        process.ask_to_end()
        wait_until(lambda: httpx.get(url, trust_env=False).status_code == 503, 3)
        wait_until(lambda: refuses(process.dicom), 3)  # the doors close after the probe's word, not before
        ends_well(process)


def refuses(address: tuple[str, int]) -> bool:
    """Whether nobody listens there any more."""
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        return False  # it was closed while we came
    return False
