"""STOW-RS, against a real broker, with httpx as the client."""

from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest
from pydicom.dataset import Dataset

from contracts.hooks import Happening
from producer.stow_answer import JSON, XML, media_type_for
from tests.test_producer.conftest import Start
from tests.test_producer.objects import SECRETS, ct, part10
from tests.test_producer.running import Running, wait_until, written
from tests.test_producer.test_multipart import BOUNDARY, body

pytestmark = [pytest.mark.stack]

MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}'
FAILED, REFERENCED, OTHER, REASON, INSTANCE = "00081198", "00081199", "0008119A", "00081197", "00081155"


def post(producer: Running, payloads: list[bytes], path: str = "/studies", **headers: str) -> httpx.Response:
    """One store request."""
    with httpx.Client(trust_env=False, timeout=30) as client:
        sent = {"Content-Type": MULTIPART} | {name.replace("_", "-"): value for name, value in headers.items()}
        return client.post(producer.stow + path, content=body(payloads), headers=sent)


def values(answer: dict[str, Any], sequence: str, tag: str) -> list[Any]:
    """One element of each item of a sequence."""
    return [item[tag]["Value"][0] for item in answer.get(sequence, {}).get("Value", [])]


def test_instances_are_stored_as_sent_and_named_in_the_answer(start: Start, broker: str) -> None:
    """200, every instance referenced; on the topics lie the very bytes of the parts, each with ``arrived``."""
    images = [ct() for _ in range(10)]
    payloads = [part10(image) for image in images]
    with start(broker) as producer:
        answer = post(producer, payloads)
        log = written(producer.settings, 10)
    assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
    assert values(answer.json(), REFERENCED, INSTANCE) == [image.SOPInstanceUID for image in images]
    assert Dataset.from_json(answer.text).ReferencedSOPSequence[0].ReferencedSOPClassUID == images[0].SOPClassUID
    assert sorted(scan.payload for scan in log.scans) == sorted(payloads)
    assert {event.sop_instance_uid for event in log.arrived} == {image.SOPInstanceUID for image in images}
    assert {scan.headers.source for scan in log.scans} == {"stow"}


def test_some_failed_is_202_and_says_which_and_why(start: Start, tansu: str) -> None:
    """PS3.18 10.5.3: stored and failed instances in one answer, without patient data."""
    good, other = ct(), ct()
    with start(tansu) as producer:
        answer = post(producer, [part10(good), part10(other), b"junk"], f"/studies/{good.StudyInstanceUID}")
    assert answer.status_code == 202
    told = answer.json()
    assert values(told, REFERENCED, INSTANCE) == [good.SOPInstanceUID]
    assert (values(told, FAILED, INSTANCE), values(told, FAILED, REASON)) == ([other.SOPInstanceUID], [0xA901])
    assert values(told, OTHER, REASON) == [0xC000]
    assert not [secret for secret in SECRETS if secret in answer.text]


def test_none_stored_is_409(start: Start, tansu: str) -> None:
    """Nothing but junk is a conflict, with the reason of each part."""
    with start(tansu) as producer:
        answer = post(producer, [b"junk", b"more junk"])
        assert answer.status_code == 409
        assert values(answer.json(), OTHER, REASON) == [0xC000, 0xC000]


def test_the_answer_is_xml_where_asked(start: Start, tansu: str) -> None:
    """A Native DICOM Model (PS3.19 A.1) with the same content."""
    image = ct()
    with start(tansu) as producer:
        answer = post(producer, [part10(image)], Accept=XML)
        assert post(producer, [part10(image)], Accept="text/html").status_code == 406
    assert answer.headers["content-type"] == XML
    space = {"d": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    found = ET.fromstring(answer.content).findall(  # noqa: S314 - our own answer
        f"d:DicomAttribute[@tag='{REFERENCED}']/d:Item/d:DicomAttribute[@tag='{INSTANCE}']/d:Value", space
    )
    assert [value.text for value in found] == [image.SOPInstanceUID]


@pytest.mark.parametrize(
    ("content_type", "content", "status"),
    [
        ("application/dicom", b"x", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', b"x", 415),
        (MULTIPART, body([b"{}"], "application/dicom+json"), 415),
        (MULTIPART, b"no boundary here", 400),
        (MULTIPART, b"", 400),
        (MULTIPART, body([b"abc"])[:-10], 400),
        ("multipart/related; type=application/dicom", b"x", 400),
    ],
)
def test_what_is_no_store_request_is_told_so(
    start: Start, tansu: str, content_type: str, content: bytes, status: int
) -> None:
    """415 for media types that are not taken, 400 for a body that cannot be read."""
    with start(tansu) as producer:
        answer = httpx.post(f"{producer.stow}/studies", content=content, headers={"Content-Type": content_type})
        assert answer.status_code == status
        assert httpx.get(f"{producer.stow}/studies").status_code == 405


def test_a_request_over_the_limit_is_413_with_and_without_its_length(start: Start, tansu: str) -> None:
    """Announced or not, a body over ``stow_max_body_bytes`` is not taken."""

    def stream() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(1000)

    with start(tansu, stow_max_body_bytes=5000) as producer:
        url, headers = f"{producer.stow}/studies", {"Content-Type": MULTIPART}
        assert httpx.post(url, content=bytes(10_000), headers=headers).status_code == 413
        head = body([b""])[:70]
        assert httpx.post(url, content=(piece for piece in [head, *stream()]), headers=headers).status_code == 413


def test_an_instance_over_the_limit_fails_alone(start: Start, tansu: str) -> None:
    """The part is dropped while it comes in; the others are stored, and no budget is lost."""
    large, small = part10(ct(PixelData=bytes(80_000), Rows=200, Columns=200)), part10(ct())
    with start(tansu, payload={"inline_limit_bytes": 50_000}) as producer:
        answer = post(producer, [large, small])
        assert answer.status_code == 202
        assert values(answer.json(), OTHER, REASON) == [0xC000]
        assert producer.door("stow")._budget.held_bytes == 0


def test_without_a_broker_it_is_503_and_later_200(start: Start, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The client is told when to come back, and is served once the broker is there."""
    from launch.stack.tansu import Tansu

    part = Tansu(tmp_path_factory.mktemp("tansu"))
    payload = part10(ct())
    try:
        with start(part.bootstrap, kafka={"ack_timeout_s": 2.0}, broker_away=True) as producer:
            answer = post(producer, [payload])
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert values(answer.json(), FAILED, REASON) == [0xA700]
            part.start()
            wait_until(lambda: post(producer, [payload]).status_code == 200, 30)
    finally:
        part.close()


def test_the_same_image_through_two_doors_is_one_image(start: Start, tansu: str) -> None:
    """Sent by C-STORE and then by STOW, it is known by its pixel digest, and its bytes as a duplicate."""
    from tests.test_producer.senders import store

    image = ct()
    with start(tansu) as producer:
        assert store(producer.dicom, part10(image)) == 0
        assert post(producer, [part10(image)]).status_code == 200
        log = written(producer.settings, 1)
        assert len(producer.hooks.labels_of(Happening.DUPLICATE)) == 1
    assert len(log.scans) == len(log.arrived) == 1


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/json", JSON),
        ("application/dicom+xml", XML),
        ("application/dicom+json;q=0.5, application/dicom+xml", XML),
        ("text/html, application/dicom+json", JSON),
        ("application/dicom+json;q=0", None),
        ("text/html", None),
    ],
)
def test_the_answers_type_is_negotiated(accept: str, media_type: str | None) -> None:
    """RFC 9110 12.5.1, for the two types that the standard names."""
    assert media_type_for(accept) == media_type
