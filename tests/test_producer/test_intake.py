"""The intake: what is accepted, what is refused and why, and what makes two objects the same image."""

import warnings
import zlib
from collections.abc import Callable
from dataclasses import astuple
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComprehensiveSRStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from contracts.errors import Rejected
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import LimitSettings, ProducerSettings
from producer.caps import DEFAULT, Caps
from producer.header import file_meta, read_header
from producer.intake import Accepted, Door, Received, examine, identity, is_uid
from producer.lanes import Lanes
from tests.test_producer.objects import SECRETS, ct, part10
from tests.test_producer.running import PYDICOM_FILES

LANES = Lanes(ProducerSettings().lane_rules)
TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
GOOD = part10(ct())

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom's, about the broken objects that these tests feed it


def took(payload: bytes, caps: Caps = DEFAULT, **announced: Any) -> Accepted:
    """Examines bytes as the folder door would."""
    facts: dict[str, Any] = {"door": Door.FOLDER, "source": "folder"} | announced
    return examine(Received(payload, received_at=1.0, traceparent=TRACE, **facts), LANES, caps)


def refusal(payload: bytes, caps: Caps = DEFAULT, **announced: Any) -> Reason:
    """The reason of the refusal that must come."""
    with pytest.raises(Rejected) as caught:
        took(payload, caps, **announced)
    return caught.value.reason


@given(st.binary(max_size=4096))
def test_junk_bytes_are_unparsable(junk: bytes) -> None:
    """Bytes that are no DICOM are refused as such, and no other exception comes out."""
    assert refusal(junk) is Reason.UNPARSABLE


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=2048), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]))
def test_junk_behind_a_good_file_meta_is_accepted_or_rejected(junk: bytes, syntax: str) -> None:
    """Whatever follows a valid File Meta, the intake answers with an image or a refusal."""
    meta = part10(ct(), syntax)
    verdict(meta[: file_meta(meta).data_set_at] + junk)


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, len(GOOD) - 1), st.binary(min_size=1, max_size=8), st.integers(0, len(GOOD)))
def test_a_damaged_object_is_accepted_or_rejected(at: int, damage: bytes, cut: int) -> None:
    """Overwritten and cut anywhere, an object is an image or a refusal, never another exception."""
    verdict((GOOD[:at] + damage + GOOD[at + len(damage) :])[:cut])


def reason_of(payload: bytes) -> Reason | None:
    """Why it was refused, None where it was accepted."""
    try:
        took(payload)
    except Rejected as refused:
        return refused.reason
    return None


def verdict(payload: bytes) -> None:
    """Fails where anything but Accepted or Rejected comes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert reason_of(payload) in (None, Reason.UNPARSABLE, Reason.MISSING_UIDS, Reason.TOO_LARGE)


def test_every_file_of_pydicoms_test_set_is_accepted_or_refused() -> None:
    """Real files of all kinds: most are taken, the rest have a reason."""
    outcomes = [reason_of(path.read_bytes()) for path in sorted(PYDICOM_FILES.rglob("*")) if path.is_file()]
    assert outcomes.count(None) > 130
    assert set(outcomes) <= {None, Reason.UNPARSABLE, Reason.MISSING_UIDS}


def test_headers_and_event_tell_what_the_object_says() -> None:
    """UIDs, transfer syntax, size, frames and modality are the data set's own."""
    image = ct(NumberOfFrames=2)
    payload = part10(image)
    accepted = took(payload)
    assert accepted.headers.study_instance_uid == accepted.arrived.study_instance_uid == image.StudyInstanceUID
    assert accepted.headers.sop_instance_uid == accepted.arrived.sop_instance_uid == image.SOPInstanceUID
    assert (accepted.headers.frames, accepted.arrived.frames) == (2, 2)
    assert (accepted.headers.size_bytes, accepted.headers.transfer_syntax_uid) == (len(payload), "1.2.840.10008.1.2.1")
    assert (accepted.arrived.modality, accepted.arrived.patient.patient_id) == ("CT", "PID-4711")
    assert accepted.headers.traceparent == accepted.arrived.traceparent == TRACE


def test_headers_key_and_reprs_hold_no_patient_data() -> None:
    """Name, ID, birth date, accession number and description are in the event's value alone."""
    accepted = took(GOOD)
    shown = repr(accepted.headers.encode()) + repr(accepted) + repr(accepted.arrived) + accepted.arrived.key.decode()
    assert not [secret for secret in SECRETS if secret in shown]
    assert all(secret in accepted.arrived.model_dump_json() for secret in SECRETS)


def test_a_name_in_its_own_character_set_is_read_in_it() -> None:
    """Specific Character Set decides how text is decoded."""
    image = ct(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jörg")
    assert took(part10(image)).arrived.patient.name == "Müller^Jörg"


@pytest.mark.parametrize(
    "charset",
    [
        b"ISO\0IR 9",
        b"\0\0x",
        b"no such set",
        b"hex",
        b"zip",
        b"punycode",
        b"undefined",
        b"\xff\xfe",
        b"\\".join([b"x"] * 40),
    ],
)
def test_a_character_set_that_is_none_costs_no_image(charset: bytes) -> None:
    """The text is read as well as it can be: Python is not asked for codecs that an object names."""
    mark = b"ISO_IR 100"
    named = part10(ct(SpecificCharacterSet=mark.decode(), PatientName="Doe^Jane"))
    told = took(named.replace(mark, charset[: len(mark)].ljust(len(mark))))
    assert told.arrived.patient.name == "Doe^Jane"


@pytest.mark.parametrize(
    "changes",
    [
        {"PatientName": "Another^One"},
        {"PatientID": "X", "PatientBirthDate": "20000101"},
        {"AccessionNumber": "A2", "StudyDescription": "other"},
        {"PixelSpacing": ["0.500", "5e-1"]},
    ],
)
def test_coerced_attributes_leave_the_image_the_same(changes: dict[str, Any]) -> None:
    """A PACS that coerces patient or order, or writes a number otherwise, sends the same image; the bytes differ."""
    image = ct()
    first = took(part10(image))
    for name, value in changes.items():
        setattr(image, name, value)
    second = took(part10(image))
    assert first.headers.pixel_digest == second.headers.pixel_digest
    assert first.headers.digest != second.headers.digest


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": b"\2\0" * 256},
        {"Rows": 8},
        {"PixelSpacing": [0.5, 0.6]},
        {"ImagePositionPatient": [0, 0, 11]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, 1]},
        {"RescaleIntercept": 0},
        {"PixelRepresentation": 1},
        {"BitsStored": 16},
        {"PhotometricInterpretation": "MONOCHROME1"},
    ],
)
def test_other_pixels_or_geometry_are_another_image(changes: dict[str, Any]) -> None:
    """The same SOP Instance UID with another picture must not pass for a resend."""
    image = ct()
    before = took(part10(image)).headers.pixel_digest
    for name, value in changes.items():
        setattr(image, name, value)
    assert took(part10(image)).headers.pixel_digest != before


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_native_transfer_syntaxes_give_one_pixel_digest(syntax: str) -> None:
    """How a sender encodes the same native pixels makes no other image of them."""
    image = dcmread(PYDICOM_FILES / "CT_small.dcm")
    explicit = took(part10(image))
    other = dcmread(PYDICOM_FILES / "CT_small.dcm")
    if syntax == ExplicitVRBigEndian:
        other.PixelData = other.pixel_array.astype(">i2").tobytes()
    recoded = took(part10(other, syntax))
    assert recoded.headers.pixel_digest == explicit.headers.pixel_digest
    assert recoded.headers.digest != explicit.headers.digest
    assert recoded.arrived.patient == explicit.arrived.patient


def test_compressed_pixels_are_known_by_their_fragments() -> None:
    """Encapsulated pixel data is hashed without its offset table, and cut short is told."""
    payload = (PYDICOM_FILES / "MR_small_RLE.dcm").read_bytes()
    image = dcmread(PYDICOM_FILES / "MR_small_RLE.dcm")
    assert image.file_meta.TransferSyntaxUID == RLELossless
    again = part10(image, RLELossless)
    assert took(payload).headers.pixel_digest == took(again).headers.pixel_digest
    assert took(payload).whole
    assert not took(payload[:-400]).whole


def test_enhanced_geometry_lies_in_its_functional_groups() -> None:
    """Another position in a functional group is another image, however the sequence is encoded."""

    def enhanced(z_mm: float, syntax: str, *, undefined: bool) -> str:
        position = Dataset()
        position.ImagePositionPatient = [0, 0, z_mm]
        group = Dataset()
        group.PlanePositionSequence = Sequence([position])
        image = ct(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1")
        image.PerFrameFunctionalGroupsSequence = Sequence([group])
        image["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
        return took(part10(image, syntax)).headers.pixel_digest

    explicit = enhanced(1, ExplicitVRLittleEndian, undefined=False)
    assert explicit == enhanced(1, ImplicitVRLittleEndian, undefined=True)
    assert explicit != enhanced(2, ExplicitVRLittleEndian, undefined=False)


def test_an_object_without_pixels_is_known_by_the_rest() -> None:
    """A report with a coerced patient is the same report; with other content it is another."""

    def report(**changes: Any) -> str:
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = ComprehensiveSRStorage, "1.2.3"
        image.StudyInstanceUID, image.SeriesInstanceUID, image.Modality = "1.2", "1.2.1", "SR"
        image.PatientName, image.ContentLabel = "A", "L"
        for name, value in changes.items():
            setattr(image, name, value)
        return took(part10(image)).headers.pixel_digest

    assert report() == report(PatientName="B")
    assert report() != report(ContentLabel="M")


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_a_missing_uid_is_refused(name: str) -> None:
    """Without its UIDs an object cannot be told apart from others."""
    image = ct()
    payload = part10(image)
    tag = image[name].tag
    element = tag.group.to_bytes(2, "little") + tag.element.to_bytes(2, "little") + b"UI"
    assert refusal(payload.replace(element, element[:2] + b"\xfe\x7f" + b"UI")) is Reason.MISSING_UIDS


@pytest.mark.parametrize("uid", ["1.2|3", "Testmann", "1.2/../3", "1..2", "1." * 40])
def test_a_uid_that_is_none_is_refused(uid: str) -> None:
    """UIDs become keys, headers and paths: nothing but digits and dots gets in, and at most 64 of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert refusal(part10(ct(StudyInstanceUID=uid))) is Reason.MISSING_UIDS
    assert not is_uid(uid)


@pytest.mark.parametrize(
    ("announced", "reason"),
    [
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, Reason.SOP_CLASS_MISMATCH),
        ({"sop_instance_uid": "1.2.3"}, Reason.SOP_INSTANCE_MISMATCH),
        ({"study_instance_uid": "1.2.3"}, Reason.STUDY_MISMATCH),
    ],
)
def test_what_was_announced_must_be_what_came(announced: dict[str, str], reason: Reason) -> None:
    """PS3.4 B.2.3 and PS3.18 10.5.2: request and data set name the same class, instance and study."""
    assert refusal(GOOD, DEFAULT, **announced) is reason


def test_a_deflate_bomb_is_refused_before_it_is_inflated() -> None:
    """A data set that inflates a thousandfold is too large, whatever it says inside."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    squeezed = (
        b"".join(machine.compress(bytes(2**20)) for _ in range(Caps().inflated_bytes // 2**20 + 64)) + machine.flush()
    )
    payload = part10(ct(), DeflatedExplicitVRLittleEndian)
    assert refusal(payload[: file_meta(payload).data_set_at] + squeezed) is Reason.TOO_LARGE


@pytest.mark.parametrize("behind", [b"", b"\0", bytes(100_000)])
def test_what_follows_a_deflated_data_set_is_left_alone(behind: bytes) -> None:
    """Its padding to an even length (PS3.5 A.5), or anything: two MiB, inflated in pieces, are one object."""
    image = ct(Rows=1024, Columns=1024, PixelData=(Random(1).randbytes(1024) + bytes(64_512)) * 32)
    assert took(part10(image, DeflatedExplicitVRLittleEndian) + behind).whole


def test_sequences_nested_without_end_are_too_complex() -> None:
    """Ten thousand levels of undefined length are refused, not followed until the stack is gone."""
    level = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    payload = part10(ct())
    assert refusal(payload[: file_meta(payload).data_set_at] + level * 10_000) is Reason.TOO_COMPLEX


@pytest.mark.parametrize(
    ("frames", "reason"), [("1A", Reason.UNPARSABLE), (str(LimitSettings().frames + 1), Reason.TOO_LARGE)]
)
def test_a_number_of_frames_that_cannot_be_is_refused(frames: str, reason: Reason) -> None:
    """A study waits for every frame it was promised: a broken promise is not taken."""
    payload = part10(ct(NumberOfFrames=12))
    old = b"\x28\x00\x08\x00IS\x02\x0012"
    value = frames.encode() + b" " * (len(frames) % 2)
    assert refusal(payload.replace(old, old[:6] + len(value).to_bytes(2, "little") + value)) is reason


def test_the_frames_of_one_instance_are_a_setting() -> None:
    """As many as ``limits.frames`` are taken, one more is too large."""
    payload = part10(ct(NumberOfFrames=12))
    assert took(payload, Caps.of(LimitSettings(frames=12))).headers.frames == 12
    assert refusal(payload, Caps.of(LimitSettings(frames=11))) is Reason.TOO_LARGE


def test_every_cap_comes_from_its_setting() -> None:
    """None is exchanged for another or left at its default."""
    limits = LimitSettings(
        inflate_ratio=2, inflated_bytes=3, sequence_depth=4, elements=5, frames=6, pixel_bytes=7, memory_bytes=8
    )
    assert astuple(Caps.of(limits)) == (2, 3, 4, 5, 6, 7)


CUTS: list[tuple[str, Callable[[bytes], bytes], bool]] = [
    ("whole", lambda payload: payload, True),
    ("in the pixels", lambda payload: payload[:-10], False),
    ("before the pixels", lambda payload: payload[: -512 - 12], False),
    ("within the header", lambda payload: payload[:-700], False),
]


@pytest.mark.parametrize(("cut", "whole"), [(cut, whole) for _, cut, whole in CUTS], ids=[name for name, *_ in CUTS])
def test_an_object_cut_short_is_known(cut: Callable[[bytes], bytes], *, whole: bool) -> None:
    """A folder waits on an object that is not whole."""
    try:
        assert took(cut(GOOD)).whole is whole
    except Rejected:
        assert not whole


def test_identity_comes_from_file_meta_and_is_empty_for_junk() -> None:
    """The answer about a refused object names it where it can."""
    image = ct()
    assert identity(part10(image)) == (image.SOPClassUID, image.SOPInstanceUID)
    assert identity(b"junk") == ("", "")


def test_the_lane_follows_the_description() -> None:
    """The default rules know an emergency by its words."""
    assert took(part10(ct(StudyDescription="CT head, STAT"))).headers.lane is Lane.STAT
    assert took(part10(ct(StudyDescription="Static study"))).headers.lane is Lane.ROUTINE


def test_only_what_is_needed_is_read() -> None:
    """Elements that nobody asked for are stepped over."""
    header = read_header(GOOD, (0x00080060,))
    assert header.text(0x00080060) == "CT"
    assert 0x00100010 not in header.elements
