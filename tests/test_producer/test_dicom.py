"""The DICOM door, against real brokers, with DCMTK and pynetdicom as senders."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import fsspec
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.sop_class import Verification

from contracts.errors import Rejected, SettingsError
from contracts.hooks import Happening
from contracts.names import Lane, partition_of
from launch.stack.tansu import Tansu
from launch.wiring.producer import limits_of
from producer import dicom_in
from producer.header import file_meta
from producer.intake import is_uid
from tests.test_producer.conftest import Start
from tests.test_producer.objects import SECRETS, ct, part10
from tests.test_producer.running import PYDICOM_FILES, Running, settings_of, wait_until, written
from tests.test_producer.senders import association, files, status_of, store, storescu, unchanged

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

CT = (CTImageStorage, ExplicitVRLittleEndian)
SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000


@pytest.fixture
def own_tansu(tmp_path: Path) -> Iterator[Tansu]:
    """A broker of one's own, not yet started: its address is known, and nothing answers there."""
    part = Tansu(tmp_path / "tansu")
    yield part
    part.close()


def sendable() -> list[tuple[str, str, bytes, bytes]]:
    """Files of pydicom's test set that have a File Meta: SOP class, transfer syntax, whole file, its data set."""
    found = []
    for path in sorted(PYDICOM_FILES.rglob("*")):
        payload = path.read_bytes() if path.is_file() else b""
        try:
            meta = file_meta(payload)
        except Rejected:
            continue
        if is_uid(meta.sop_class_uid) and is_uid(meta.sop_instance_uid) and "DICOMDIR" not in path.name:
            found.append((meta.sop_class_uid, meta.transfer_syntax_uid, payload, payload[meta.data_set_at :]))
    return found


def test_every_transfer_syntax_is_kept_byte_for_byte(start: Start, broker: str, tmp_path: Path) -> None:
    """What gets Success is on the topic as it was sent, with its ``arrived``; what does not is refused by status."""
    objects = sendable()
    stored: set[bytes] = set()
    with start(broker) as producer, unchanged(tmp_path) as send:
        for context in sorted({(sop_class, syntax) for sop_class, syntax, _, _ in objects}):
            with association(producer.dicom, context) as peer:
                for _, _, payload, data_set in (found for found in objects if found[:2] == context):
                    status = send(peer, payload)
                    assert status in (SUCCESS, MISMATCH, CANNOT_UNDERSTAND), hex(status)
                    stored |= {data_set} if status == SUCCESS else set()
        log = written(producer.settings, len(stored))
    payloads = [scan.payload[file_meta(scan.payload).data_set_at :] for scan in log.scans]
    assert len(stored) > 100
    assert sorted(payloads) == sorted(stored)
    assert len({scan.headers.transfer_syntax_uid for scan in log.scans}) >= 8
    images = {(scan.headers.sop_instance_uid, scan.headers.pixel_digest) for scan in log.scans}
    assert {event.image for event in log.arrived} == images


def test_storescu_on_four_associations_at_once_has_every_image_stored(
    start: Start, broker: str, tmp_path: Path
) -> None:
    """DCMTK sees Success for all; each image lies once on the topics, in its study's partition, with ``arrived``."""
    images = [ct(PixelData=bytes([number, 0]) * 256) for number in range(24)]
    paths = files(tmp_path, images)
    with start(broker) as producer:
        senders = [storescu(producer.dicom, paths[n::4], "-v") for n in range(4)]
        told = [sender.communicate(timeout=60)[0] for sender in senders]
        log = written(producer.settings, 24)
    assert [sender.returncode for sender in senders] == [0] * 4
    assert sum(text.count("Success") for text in told) == 24
    assert sorted(scan.headers.sop_instance_uid for scan in log.scans) == sorted(i.SOPInstanceUID for i in images)
    assert sorted(event.sop_instance_uid for event in log.arrived) == sorted(i.SOPInstanceUID for i in images)
    studies = [key.decode().split("|")[0] for key in log.keys]
    assert log.partitions == [partition_of(study, 3) for study in studies]


def test_keys_and_headers_hold_no_patient_data(start: Start, tansu: str) -> None:
    """Patient data travels in values alone (design decision 11)."""
    with start(tansu) as producer:
        assert store(producer.dicom, part10(ct())) == SUCCESS
        log = written(producer.settings, 1)
    outside = b"".join(log.raw_headers + log.keys)
    assert not [secret for secret in SECRETS if secret.encode() in outside]
    assert log.scans[0].headers.source == "SCANNER"


def test_without_a_broker_stores_get_0xa700_and_succeed_once_it_is_there(start: Start, own_tansu: Tansu) -> None:
    """Ready and honest while the broker is away; nothing has to be restarted when it comes."""
    payload = part10(ct())
    with start(own_tansu.bootstrap, kafka={"ack_timeout_s": 2.0}, broker_away=True) as producer:
        assert producer.service.ready()
        assert store(producer.dicom, payload) == OUT_OF_RESOURCES
        assert producer.service.peers()["kafka"] == "away"
        with association(producer.dicom, (Verification, ExplicitVRLittleEndian)) as peer:
            assert peer.send_c_echo().Status == SUCCESS
        own_tansu.start()
        wait_until(lambda: store(producer.dicom, payload) == SUCCESS, 30)
        assert len(written(producer.settings, 1).arrived) == 1
        assert {"door": "dicom", "reason": "broker_away"} in producer.hooks.labels_of(Happening.REFUSED)


def test_a_duplicate_is_told_success_and_not_sent_again(start: Start, tansu: str) -> None:
    """The same bytes twice are one record of each kind; the same instance with other pixels is kept."""
    image = ct()
    with start(tansu) as producer:
        assert [store(producer.dicom, part10(image)) for _ in range(2)] == [SUCCESS] * 2
        image.PixelData = b"\7\0" * 256
        assert store(producer.dicom, part10(image)) == SUCCESS
        log = written(producer.settings, 2)
        assert producer.hooks.labels_of(Happening.DUPLICATE) == [{"room": "producer"}]
    assert len(log.scans) == len(log.arrived) == 2
    assert len({event.pixel_digest for event in log.arrived}) == 2


def test_a_memory_only_broker_that_was_lost_is_sent_everything_again(start: Start, own_tansu: Tansu) -> None:
    """What a lost broker had acknowledged is gone, so a resend is no duplicate any more."""
    own_tansu.start()
    payload = part10(ct())
    with start(own_tansu.bootstrap, kafka={"ack_timeout_s": 4.0, "memory_only": True}) as producer:
        assert store(producer.dicom, payload) == SUCCESS
        own_tansu.kill()
        wait_until(lambda: producer.service.peers()["kafka"] == "away", 30)
        own_tansu.start()
        wait_until(lambda: store(producer.dicom, payload) == SUCCESS, 60)
        assert len(written(producer.settings, 1).scans) == 1


def test_high_priority_takes_the_stat_lane(start: Start, tansu: str) -> None:
    """DIMSE priority decides between the two topics (PS3.7 9.1.1.1)."""
    with start(tansu) as producer:
        first, second = ct(), ct()
        assert store(producer.dicom, part10(first), priority=1) == SUCCESS
        assert store(producer.dicom, part10(second), priority=0) == SUCCESS
        log = written(producer.settings, 2)
    assert log.of(first.SOPInstanceUID).headers.lane is Lane.STAT
    assert log.of(second.SOPInstanceUID).headers.lane is Lane.ROUTINE


def test_a_private_sop_class_is_taken(start: Start, tansu: str) -> None:
    """A class that no list knows is stored like any other."""
    image = ct(SOPClassUID="1.2.826.0.1.3680043.8.498.99.1")
    with start(tansu) as producer:
        assert store(producer.dicom, part10(image)) == SUCCESS
        assert written(producer.settings, 1).scans[0].headers.sop_class_uid == image.SOPClassUID


def test_mismatch_and_junk_get_their_statuses(start: Start, tansu: str, tmp_path: Path) -> None:
    """0xA900 where class or instance differ from the request, 0xC000 where nothing can be read; nothing is written."""
    good = part10(ct())
    head = good[: file_meta(good).data_set_at]
    other = part10(ct())
    with start(tansu) as producer, unchanged(tmp_path) as send, association(producer.dicom, CT) as peer:
        assert send(peer, head + other[file_meta(other).data_set_at :]) == MISMATCH
        assert send(peer, head + b"junk" * 100) == CANNOT_UNDERSTAND
        assert send(peer, good) == SUCCESS
        log = written(producer.settings, 1)
    assert [scan.payload[file_meta(scan.payload).data_set_at :] for scan in log.scans] == [good[len(head) :]]


@pytest.mark.parametrize(
    ("titles", "welcome"),
    [
        ({"calling": "CT1", "called": "TRIAGE"}, True),
        ({"calling": "CT1", "called": "TRIAGE2"}, True),
        ({"calling": "CT1", "called": "OTHER"}, False),
        ({"calling": "CT9", "called": "TRIAGE"}, False),
    ],
)
def test_only_listed_titles_are_let_in(start: Start, tansu: str, titles: dict[str, str], *, welcome: bool) -> None:
    """Called and calling AE titles are checked at the association; a refusal is counted."""
    with start(tansu, called_aes=("TRIAGE", "TRIAGE2"), calling_aes=("CT1", "CT2")) as producer:
        with association(producer.dicom, CT, **titles) as peer:
            assert peer.is_established is welcome
            assert peer.is_rejected is not welcome
        refused = producer.hooks.labels_of(Happening.REFUSED)
        assert refused == ([] if welcome else [{"door": "dicom", "reason": "not_allowed"}])


def test_an_object_over_the_cap_is_forgotten_while_it_comes_in(start: Start, tansu: str) -> None:
    """0xC000, and the association goes on: the next object is stored, and no budget is lost."""
    big = part10(ct(PixelData=bytes(2 * 1024 * 1024), Rows=1024, Columns=1024))
    with start(tansu, payload={"inline_limit_bytes": 1024 * 1024}) as producer, association(producer.dicom, CT) as peer:
        assert status_of(peer, big) == CANNOT_UNDERSTAND
        assert status_of(peer, part10(ct())) == SUCCESS
        assert {"door": "dicom", "reason": "too_large"} in producer.hooks.labels_of(Happening.REFUSED)
        assert held_bytes(producer) == 0


def test_bytes_of_a_sender_that_hangs_up_are_given_back(start: Start, tansu: str) -> None:
    """However an association ends, what it held is free for others."""
    with start(tansu) as producer:
        with association(producer.dicom, CT) as peer:
            fragment = P_DATA()
            fragment.presentation_data_value_list = [[1, b"\x00" + bytes(10_000)]]
            peer.dul.send_pdu(fragment)
            wait_until(lambda: held_bytes(producer) == 10_000, 10)
            peer.abort()
        wait_until(lambda: held_bytes(producer) == 0, 10)


def held_bytes(producer: Running) -> int:
    """What the shared budget has out."""
    return int(producer.door("dicom")._budget.held_bytes)


def test_a_pdu_that_claims_four_gigabytes_is_hung_up_on(start: Start, tansu: str) -> None:
    """Six bytes must not make us wait for, or hold, what they announce."""
    with start(tansu) as producer, socket.create_connection(producer.dicom, timeout=10) as peer:
        peer.sendall(b"\x01\x00\xff\xff\xff\xff")
        assert peer.recv(64) == b""


def test_what_is_too_large_for_a_record_goes_to_the_claim_check(start: Start, tansu: str, tmp_path: Path) -> None:
    """The record is empty and names the payload, which lies there whole under a name without patient data."""
    small, large = part10(ct()), part10(ct(PixelData=bytes(200_000), Rows=250, Columns=400))
    folder = (tmp_path / "payload").as_uri()
    with start(tansu, payload={"url": folder, "inline_limit_bytes": 100_000}) as producer:
        assert [store(producer.dicom, payload) for payload in (small, large)] == [SUCCESS] * 2
        log = written(producer.settings, 2)
        assert producer.service.peers()["payload"] == "up"
    (claimed,) = [scan for scan in log.scans if scan.headers.claim]
    (inline,) = [scan for scan in log.scans if not scan.headers.claim]
    assert claimed.payload == b""
    assert inline.payload
    with fsspec.open(claimed.headers.claim) as file:
        kept = file.read()
    assert kept[file_meta(kept).data_set_at :] == large[file_meta(large).data_set_at :]
    assert claimed.headers.size_bytes == len(kept)
    assert [path.name for path in (tmp_path / "payload").rglob("*.part")] == []


def test_a_payload_store_that_is_away_gets_0xa700(start: Start, tansu: str, tmp_path: Path) -> None:
    """Without the payload the record must not be written."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with start(tansu, payload={"url": (blocked / "below").as_uri(), "inline_limit_bytes": 1000}) as producer:
        assert store(producer.dicom, part10(ct())) == OUT_OF_RESOURCES
        assert {"door": "dicom", "reason": "store_away"} in producer.hooks.labels_of(Happening.REFUSED)
        assert written(producer.settings, 0, patience_s=1).scans == []


def test_an_inline_limit_that_no_record_can_hold_stops_the_start() -> None:
    """Settings that cannot work are told before the first image."""
    settings = settings_of("127.0.0.1:1", "", {"max_record_bytes": 1_000_000}, {"inline_limit_bytes": 1_000_000})
    with pytest.raises(SettingsError, match="inline_limit_bytes"):
        limits_of(settings)


def test_stopping_in_mid_transfer_loses_nothing_acknowledged(
    start: Start, tansu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On SIGTERM stores in progress are finished: every Success is on the topics."""
    monkeypatch.setattr(dicom_in, "GOODBYE_S", 1.0)  # so that the end comes before the senders'
    images = [ct() for _ in range(400)]
    acknowledged: list[str] = []

    def send(producer: Running, part: list[object]) -> None:
        with association(producer.dicom, CT) as peer:
            for image in part:
                answer = peer.send_c_store(image)
                if "Status" not in answer:
                    return  # aborted
                if answer.Status == SUCCESS:
                    acknowledged.append(image.SOPInstanceUID)  # type: ignore[attr-defined]  # a Dataset

    for image in images:
        part10(image)
    with start(tansu) as producer:
        senders = [threading.Thread(target=send, args=(producer, images[n::4])) for n in range(4)]
        for sender in senders:
            sender.start()
        wait_until(lambda: len(acknowledged) > 20, 30)
        producer.end()
        for sender in senders:
            sender.join(30)
        log = written(producer.settings, len(acknowledged))
    assert 20 < len(acknowledged) < 400
    assert set(acknowledged) <= {scan.headers.sop_instance_uid for scan in log.scans}
    assert set(acknowledged) <= {event.sop_instance_uid for event in log.arrived}


def test_more_associations_than_allowed_are_turned_away(start: Start, tansu: str) -> None:
    """Over the limit a peer is told so, and the ones inside go on."""
    with ExitStack() as inside:
        producer = inside.enter_context(start(tansu, max_associations=2))
        peers = [inside.enter_context(association(producer.dicom, CT)) for _ in range(3)]
        assert [peer.is_established for peer in peers] == [True, True, False]
        assert peers[2].is_rejected
        assert status_of(peers[0], part10(ct())) == SUCCESS


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\n\r\n"])
def test_a_peer_that_hangs_up_before_it_asks_leaves_its_place(start: Start, tansu: str, said: bytes) -> None:
    """A port check or a scan of ports keeps nothing: no connection waits any more, long before its time is over."""
    with start(tansu, limits={"first_pdu_s": 60.0}) as producer:  # so that it is not the timeout that helps
        for _ in range(2):
            with socket.create_connection(producer.dicom) as peer:
                peer.sendall(said)
        door = producer.door("dicom")
        wait_until(lambda: not door._places.waiting() and not door._associations(), 20)
