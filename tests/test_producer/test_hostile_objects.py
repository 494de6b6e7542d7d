"""Objects made to exhaust whoever reads them: bounded by counting, before anything is built from them."""

import random
import struct
import tracemalloc
import warnings
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import dcmread
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from contracts.errors import Rejected
from contracts.hooks import Happening
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.caps import Caps
from producer.header import file_meta, read_header
from producer.intake import Accepted, Door, Received, examine
from producer.lanes import Lanes
from producer.memory import Budget, Loan
from producer.payload_out import PayloadStore
from producer.preamble import PROGRAMS, for_files, program
from producer.upper_layer import Malformed, check_associate, check_data, command_field
from tests.test_producer.objects import (
    ELF_HEAD,
    PE_HEAD,
    SCRIPT_HEAD,
    TIFF_HEAD,
    beginning_with,
    bomb,
    ct,
    files_below,
    part10,
)
from tests.test_producer.running import PYDICOM_FILES

GOOD = part10(ct(SOPInstanceUID="1.2.3", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1"))
START = file_meta(GOOD).data_set_at
PIXELS = GOOD.index(b"\xe0\x7f\x10\x00")
ENDLESS = b"\xff\xff\xff\xff"
OPEN = b"\x08\x00\x40\x11SQ\0\0" + ENDLESS + b"\xfe\xff\x00\xe0" + ENDLESS
EMPTY_ITEM = b"\xfe\xff\x00\xe0\0\0\0\0"
MANY = 400_000  # twice the cap


def verdict(payload: bytes, caps: Caps | None = None) -> Reason | None:
    """Why an object is refused; None where it is accepted."""
    try:
        examine(Received(payload, Door.STOW, "x", 1.0, "t"), Lanes(()), caps or Caps())
    except Rejected as refusal:
        return refusal.reason
    return None


def accepted(payload: bytes) -> Accepted:
    """It is."""
    return examine(Received(payload, Door.STOW, "x", 1.0, "t"), Lanes(()))


def empties(count: int, group: int = 0x0009) -> bytes:
    """Elements without a value, all different."""
    return b"".join(struct.pack("<HH2sH", group + (n >> 16) * 2, n & 0xFFFF, b"LO", 0) for n in range(count))


def nested(levels: int) -> bytes:
    """Sequences of defined length, each in the other."""
    inner = b""
    for _ in range(levels):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(inner)) + inner
        inner = b"\x08\x00\x40\x11SQ\0\0" + struct.pack("<L", len(item)) + item
    return inner


HOSTILE = {
    "nested without end": (OPEN * 100_000, Reason.TOO_COMPLEX),
    "nested, each with its length": (nested(3000), Reason.TOO_COMPLEX),
    "nested behind the pixels": (GOOD[START:] + OPEN * 10_000, Reason.TOO_COMPLEX),
    "nested behind pixels and zeros": (GOOD[START:] + bytes(80_000) + nested(3000), Reason.TOO_COMPLEX),
    "nested in what calls itself unknown": (
        (b"\x09\x00\x10\x10UN\0\0" + ENDLESS + b"\xfe\xff\x00\xe0" + ENDLESS) * 10_000,
        Reason.TOO_COMPLEX,
    ),
    "elements without end": (empties(MANY), Reason.TOO_COMPLEX),
    "items without end": (b"\x08\x00\x40\x11SQ\0\0" + ENDLESS + EMPTY_ITEM * MANY, Reason.TOO_COMPLEX),
    "items of known length": (
        b"\x08\x00\x40\x11SQ\0\0" + struct.pack("<L", 8 * MANY) + EMPTY_ITEM * MANY,
        Reason.TOO_COMPLEX,
    ),
    "fragments without end": (
        GOOD[START:PIXELS] + b"\xe0\x7f\x10\x00OB\0\0" + ENDLESS + EMPTY_ITEM * MANY,
        Reason.TOO_COMPLEX,
    ),
    "a sequence that never closes": (OPEN, Reason.UNPARSABLE),
    "a sequence of no items": (b"\x08\x00\x40\x11SQ\0\0" + ENDLESS + b"junkjunkjunk", Reason.UNPARSABLE),
    "private garbage": (random.Random(4).randbytes(4 * 1024**2), None),
    "a length beyond everything": (b"\x08\x00\x05\x00OB\0\0\xfe\xff\xff\xff", Reason.MISSING_UIDS),
}


@pytest.mark.parametrize(("data_set", "reason"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_structure_is_refused_and_costs_little_memory(data_set: bytes, reason: Reason | None) -> None:
    """Whatever the bytes nest or repeat, what is built from them stays below 64 MiB, and the stack is not touched."""
    payload = GOOD[:START] + data_set
    tracemalloc.start()
    try:
        found = verdict(payload)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found is reason or (reason is None and found in (Reason.UNPARSABLE, Reason.MISSING_UIDS))
    assert peak < 64 * 1024**2


def test_what_honest_objects_need_is_far_below_the_caps() -> None:
    """An enhanced object of 2,000 frames, each with its groups, is taken; a report nested ten deep is, too."""
    frame = Dataset()
    position = Dataset()
    position.ImagePositionPatient = [0, 0, 1]
    for keyword in (
        "PlanePositionSequence",
        "PlaneOrientationSequence",
        "PixelMeasuresSequence",
        "FrameVOILUTSequence",
    ):
        setattr(frame, keyword, Sequence([position]))
    image = ct(NumberOfFrames=2000, PerFrameFunctionalGroupsSequence=Sequence([frame] * 2000))
    assert verdict(part10(image)) is None
    assert verdict(GOOD[:START] + nested(10) + GOOD[START:]) is None


def test_each_cap_is_a_setting() -> None:
    """A site that must can raise or lower them: the same object falls on either side."""
    limits = LimitSettings(sequence_depth=3, elements=40)
    inner = nested(4) + GOOD[START:]
    assert verdict(GOOD[:START] + inner) is None
    assert verdict(GOOD[:START] + inner, Caps.of(limits)) is Reason.TOO_COMPLEX
    assert verdict(GOOD, Caps(elements=10)) is Reason.TOO_COMPLEX


def test_announced_pixels_beyond_every_product_are_refused() -> None:
    """65,535 squared in 99,999 frames is nothing that anybody will ever decode; a large slide is left to scoring."""
    assert verdict(part10(ct(Rows=65535, Columns=65535, NumberOfFrames=99_999))) is Reason.TOO_LARGE
    assert verdict(part10(ct(Rows=65535, Columns=65535))) is None


def test_a_bomb_takes_from_the_budget_no_more_than_its_cap_and_gives_all_back() -> None:
    """What is inflated is counted while it grows."""
    budget = Budget(10 * 1024**2)
    with pytest.raises(Rejected) as refusal, Loan(budget) as loan:
        read_header(bomb(), take=loan.take)
    assert refusal.value.reason is Reason.BUFFER_FULL
    assert budget.held_bytes == 0
    assert verdict(bomb()) is Reason.TOO_LARGE


@given(st.binary(max_size=400), st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian]))
def test_random_bytes_are_refused_or_accepted(junk: bytes, syntax: str) -> None:
    """Nothing but Rejected ever leaves the intake."""
    whole = part10(ct(), syntax)
    for payload in (whole[: file_meta(whole).data_set_at] + junk, whole + junk, GOOD[:140] + junk + GOOD[140:]):
        verdict(payload)


_leaf = st.tuples(st.just("leaf"), st.binary(max_size=8), st.booleans())

_tree = st.recursive(
    _leaf,
    lambda inner: st.tuples(st.just("seq"), st.lists(st.lists(inner, max_size=3), max_size=3), st.booleans()),
    max_leaves=20,
)


def _encoded(nodes: list[tuple[str, object, bool]]) -> bytes:
    """Elements in rising order, sequences of defined or undefined length."""
    written = b""
    for number, (kind, value, undefined) in enumerate(nodes):
        tag = struct.pack("<HH", 0x0009, 0x1000 + number)
        if kind == "leaf":
            assert isinstance(value, bytes)
            written += tag + b"OB\0\0" + struct.pack("<L", len(value)) + value
            continue
        assert isinstance(value, list)
        items = b"".join(_item(_encoded(item), undefined=undefined) for item in value)
        end = b"\xfe\xff\xdd\xe0\0\0\0\0" if undefined else b""
        written += tag + b"SQ\0\0" + (ENDLESS if undefined else struct.pack("<L", len(items))) + items + end
    return written


def _item(inner: bytes, *, undefined: bool) -> bytes:
    if undefined:
        return b"\xfe\xff\x00\xe0" + ENDLESS + inner + b"\xfe\xff\x0d\xe0\0\0\0\0"
    return b"\xfe\xff\x00\xe0" + struct.pack("<L", len(inner)) + inner


@given(st.lists(_tree, max_size=5))
@settings(deadline=None)
def test_well_formed_trees_are_walked_as_pydicom_walks_them(nodes: list[tuple[str, object, bool]]) -> None:
    """However deep and however encoded: the same elements, and the pixels where they are."""
    payload = GOOD[:START] + GOOD[START:PIXELS] + GOOD[PIXELS:]
    at = payload.index(b"\x10\x00\x10\x00PN")
    payload = payload[:at] + _encoded(nodes) + payload[at:]
    header = read_header(payload)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = dcmread(BytesIO(payload), stop_before_pixels=True)
    assert sorted(header.elements) == sorted(int(tag) for tag in data.keys())  # noqa: SIM118 - it iterates over elements
    assert header.pixels is not None
    assert header.pixels.at == payload.index(b"\xe0\x7f\x10\x00OW") + 12
    assert not header.cut_short


def test_every_file_of_pydicom_shows_the_elements_that_pydicom_shows() -> None:
    """Our own walk is as lenient as the reader that scoring uses."""
    compared = 0
    for path in sorted(PYDICOM_FILES.rglob("*.dcm")):
        payload = path.read_bytes()
        try:
            header = read_header(payload)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                data = dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001, S112 - one of the two refuses it: nothing to compare
            continue
        assert sorted(header.elements) == sorted(int(tag) for tag in data.keys()), path.name  # noqa: SIM118 - it iterates over elements
        compared += 1
    assert compared > 60


@pytest.mark.parametrize(
    ("preamble", "kind"),
    [(PE_HEAD, "pe"), (ELF_HEAD, "elf"), (SCRIPT_HEAD, "script"), (TIFF_HEAD, ""), (bytes(128), "")],
)
def test_a_preamble_that_is_a_program_is_known(preamble: bytes, kind: str) -> None:
    """TIFF and zeros are legitimate; and only what is DICOM has a preamble at all."""
    payload = beginning_with(preamble, GOOD)
    assert program(payload) == kind
    assert program(preamble + b"not DICOM") == ""
    assert accepted(payload).headers.digest == accepted(GOOD).headers.digest
    stored = b"".join(for_files(payload))
    assert stored == (beginning_with(bytes(128), GOOD) if kind else payload)


def test_every_kind_of_program_is_a_label_of_a_closed_list() -> None:
    """What becomes a metric's label."""
    assert {kind for _, kind in PROGRAMS} == {"pe", "elf", "script", "macho"}
    assert Happening.EXECUTABLE.value == "executable"


def test_the_store_never_holds_a_program(tmp_path: Path) -> None:
    """What lies there differs from what came in its first 128 bytes, and nowhere else; its name is its own digest."""
    payload = beginning_with(ELF_HEAD, GOOD)
    store = PayloadStore(tmp_path.as_uri())
    (place,) = (Path(store.put(payload).removeprefix("file://")),)
    kept = place.read_bytes()
    assert kept[:128] == bytes(128)
    assert kept[128:] == payload[128:]
    assert files_below(tmp_path) == [place]


@pytest.mark.parametrize(
    "uid", ["../../etc/passwd", "1.2\0.3", "1.2/../3", "..", "1.2\\3", "1.2;rm -rf", "C:1.2", "1" * 65]
)
@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_a_uid_that_is_a_path_gets_no_further(uid: str, name: str) -> None:
    """It is refused before anything could be named after it."""
    raw = GOOD[:START] + GOOD[START:]
    tags = {
        "StudyInstanceUID": 0x0020000D,
        "SeriesInstanceUID": 0x0020000E,
        "SOPInstanceUID": 0x00080018,
        "SOPClassUID": 0x00080016,
    }
    mark = struct.pack("<HH", tags[name] >> 16, tags[name] & 0xFFFF) + b"UI"
    at = raw.index(mark, START)
    length = struct.unpack_from("<H", raw, at + 6)[0]
    value = uid.encode() + b"\0" * (len(uid) % 2)
    changed = raw[: at + 6] + struct.pack("<H", len(value)) + value + raw[at + 8 + length :]
    assert verdict(changed) is Reason.MISSING_UIDS


def test_the_elements_of_a_command_set_have_a_number() -> None:
    """As many as the setting allows are read, with one more it is none."""
    encoded = b"".join(struct.pack("<HHLH", 0, number, 2, 0x30) for number in (0x0100, *range(0x1000, 0x1003)))
    assert command_field(encoded, 4) == 0x30
    with pytest.raises(Malformed):
        command_field(encoded, 3)


@given(st.binary(max_size=300))
def test_pdu_checks_say_yes_or_malformed(body: bytes) -> None:
    """Whatever the bytes are."""
    for check in (lambda: check_associate(body, 100), lambda: check_data(body, 100), lambda: command_field(body, 64)):
        try:
            check()
        except Malformed:
            continue
