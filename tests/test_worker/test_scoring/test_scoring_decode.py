"""Part 10 bytes → Hounsfield units: every transfer syntax, padding, signs, budgets, damage."""

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.data import get_testdata_files
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from contracts.errors import NotAnalysable, PeerAway
from contracts.reasons import Category, Reason
from worker.scoring.codestream import shape_of
from worker.scoring.decode import Budget, Instance, frames_of, read
from worker.scoring.hounsfield import _rescaled, hounsfield
from worker.scoring.routing import check_content, check_frame, way_of

BUDGET = Budget(1 << 30, 64 << 20)
Change = Callable[[Dataset], None]


def opened(payload: bytes, budget: Budget = BUDGET) -> Instance:
    """The instance of a payload."""
    return read(payload, "", budget)


def first_hu(payload: bytes, budget: Budget = BUDGET) -> NDArray[np.float16]:
    """The first frame in HU."""
    instance = opened(payload, budget)
    return hounsfield(next(frames_of(instance, budget)), instance.frame_facts(0), instance.data)


def saved(data: Dataset, syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """Part 10 bytes in an uncompressed transfer syntax."""
    out = BytesIO()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(out, enforce_file_format=True)
    return out.getvalue()


def changed(payload: bytes, change: Change) -> bytes:
    """The payload with its data set changed."""
    data = pydicom.dcmread(BytesIO(payload))
    change(data)
    return saved(data, data.file_meta.TransferSyntaxUID)


def with_pixels(payload: bytes, pixels: NDArray[Any], **tags: Any) -> bytes:
    """The payload with other stored values and tags."""

    def change(data: Dataset) -> None:
        data.Rows, data.Columns = pixels.shape
        data.BitsStored, data.HighBit = 16, 15
        data.PixelData = pixels.tobytes()
        for name, value in tags.items():
            if name.startswith("PixelPadding"):
                data.add_new(name, "SS", value)
            else:
                setattr(data, name, value)

    return changed(payload, change)


def test_signed_data_set_around_unsigned_codestream_has_the_right_hu(head: bytes) -> None:
    """The real head CT whose JPEG 2000 codestream denies the sign: air is −1024, brain is soft tissue, bone dense."""
    hu = first_hu(head).astype(np.float32)
    assert hu.shape == (512, 512)
    assert hu.min() == -1024.0
    assert hu.max() == 1896.0
    brain = hu[200:300, 200:300]
    assert 20.0 < float(np.median(brain)) < 50.0


def test_unsigned_data_set_around_signed_codestream_has_the_right_hu(small_head: bytes) -> None:
    """A codestream that says signed is believed, whatever PixelRepresentation says."""
    expected = first_hu(small_head)
    data = pydicom.dcmread(BytesIO(small_head))
    data.compress(JPEG2000Lossless)
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    shape = shape_of(frame)
    assert shape is not None
    assert shape.signed
    data.PixelRepresentation = 0
    out = BytesIO()
    data.save_as(out)
    assert np.array_equal(first_hu(out.getvalue()), expected)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda syntax: str(syntax.name)
)
def test_native_transfer_syntaxes_give_the_same_hu(small_head: bytes, syntax: UID) -> None:
    """Implicit VR and deflated are other writings of the same pixels."""
    again = saved(pydicom.dcmread(BytesIO(small_head)), syntax)
    assert np.array_equal(first_hu(again), first_hu(small_head))


def test_big_endian_gives_the_same_hu(small_head: bytes) -> None:
    """Explicit VR Big Endian is retired, and still sent."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.PixelData = data.pixel_array.astype(">i2").tobytes()
    fresh = Dataset()
    for element in data:  # pydicom does not turn a data set around that was read the other way
        fresh.add(element)
    fresh.file_meta = data.file_meta
    assert np.array_equal(first_hu(saved(fresh, ExplicitVRBigEndian)), first_hu(small_head))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless], ids=lambda s: str(s.name))
def test_lossless_compression_gives_the_same_hu(small_head: bytes, syntax: UID) -> None:
    """RLE, JPEG-LS and JPEG 2000, with signed 13-bit pixels."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.compress(syntax)
    out = BytesIO()
    data.save_as(out)
    assert np.array_equal(first_hu(out.getvalue()), first_hu(small_head))


def test_jpeg_lossless_of_a_real_scanner_is_decoded(sample: Callable[[str], bytes]) -> None:
    """Process 14 SV1, the older archives' favourite: a neck CT of pydicom's test set."""
    hu = first_hu(sample("bad_sequence.dcm")).astype(np.float32)
    assert hu.min() == -1011.0
    assert hu.max() == 1243.0


def test_unsupported_transfer_syntax_is_told(small_head: bytes) -> None:
    """Video and private transfer syntaxes have no decoder here."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.PixelData = encapsulate([b"\0" * 10])
    data["PixelData"].is_undefined_length = True
    data.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.100")
    out = BytesIO()
    data.save_as(out)
    with pytest.raises(NotAnalysable) as refused:
        first_hu(out.getvalue())
    assert refused.value.reason is Reason.UNSUPPORTED_TRANSFER_SYNTAX


def test_htj2k_has_a_decoder() -> None:
    """High-throughput JPEG 2000 is among what the plug-ins offer."""
    assert get_decoder(HTJ2KLossless).is_available


def test_rescale_gives_hu_and_clips_to_twelve_bits(small_head: bytes) -> None:
    """Slope and intercept are applied, the result lies within −1024…3071 (FP16 has steps of 2 up there)."""
    pixels = np.array([[0, 1000, 1500], [2024, 5000, 100]], dtype=np.int16)
    hu = first_hu(with_pixels(small_head, pixels, RescaleIntercept=-2000, RescaleSlope=2))
    assert hu.tolist() == [[-1024.0, 0.0, 1000.0], [2048.0, 3072.0, -1024.0]]


@settings(max_examples=50, deadline=None)
@given(st.integers(-3000, 3000), st.lists(st.integers(-32768, 32767), min_size=1, max_size=50))
def test_whole_intercepts_take_a_short_way_to_the_same_hu(intercept: int, values: list[int]) -> None:
    """The look-up equals float arithmetic, converted to FP16, for every 16-bit value."""
    stored = np.array([values], dtype=np.int16)
    exact = np.clip(stored.astype(np.float64) + intercept, -1024, 3071).astype(np.float16)
    assert np.array_equal(_rescaled(stored, 1.0, float(intercept)), exact)


def test_monochrome1_does_not_turn_hounsfield_units_around(small_head: bytes) -> None:
    """The photometric interpretation is about display; the rescaled value is HU either way."""

    def invert(data: Dataset) -> None:
        data.PhotometricInterpretation = "MONOCHROME1"

    assert np.array_equal(first_hu(changed(small_head, invert)), first_hu(small_head))


def test_padding_becomes_air_also_when_its_sign_is_written_wrongly(small_head: bytes) -> None:
    """−2000 and 63536 are the same 16 bits; a padding of 3000 would otherwise look like metal."""
    pixels = np.array([[3000, 40], [50, 3000]], dtype=np.int16)
    assert first_hu(with_pixels(small_head, pixels, PixelPaddingValue=3000)).tolist() == [[-1024, 40], [50, -1024]]
    pixels = np.array([[-2000, 40], [50, 60]], dtype=np.int16)
    payload = with_pixels(small_head, pixels, RescaleIntercept=2100)

    def pad(data: Dataset) -> None:
        data.add_new("PixelPaddingValue", "US", 63536)

    assert first_hu(changed(payload, pad)).tolist() == [[-1024, 2140], [2150, 2160]]


def test_padding_range_is_padding_from_either_side(small_head: bytes) -> None:
    """Value and range limit enclose the padding, whichever is larger."""
    pixels = np.array([[2500, 2600, 2700, 2800]], dtype=np.int16)
    for low, high in ((2600, 2700), (2700, 2600)):
        tags = {"PixelPaddingValue": low, "PixelPaddingRangeLimit": high}
        assert first_hu(with_pixels(small_head, pixels, **tags)).tolist() == [[2500, -1024, -1024, 2800]]


def test_padding_with_the_value_of_tissue_makes_no_holes_in_tissue(small_head: bytes) -> None:
    """A padding value of 0 HU is padding where it reaches the border, and cerebrospinal fluid inside."""
    pixels = np.full((7, 7), 0, dtype=np.int16)
    pixels[1:6, 1:6] = 40
    pixels[3, 3] = 0
    hu = first_hu(with_pixels(small_head, pixels, PixelPaddingValue=0))
    assert hu[3, 3] == 0.0
    assert (hu[0] == -1024.0).all()
    assert (hu[:, 6] == -1024.0).all()


def test_frame_over_budget_is_refused_before_decoding(small_head: bytes) -> None:
    """Rows × columns × samples × bytes is compared first: a kilobyte may claim gigabytes."""

    def claim(data: Dataset) -> None:
        data.Rows = data.Columns = 65535

    with pytest.raises(NotAnalysable) as refused:
        first_hu(changed(small_head, claim))
    assert refused.value.reason is Reason.PIXELS_OVER_BUDGET


def test_number_of_frames_counts_against_the_budget(small_head: bytes) -> None:
    """Many small frames are as much work as one large one."""

    def claim(data: Dataset) -> None:
        data.NumberOfFrames = 1_000_000

    with pytest.raises(NotAnalysable) as refused:
        first_hu(changed(small_head, claim))
    assert refused.value.reason is Reason.PIXELS_OVER_BUDGET


def test_codestream_larger_than_announced_never_reaches_a_decoder(head: bytes) -> None:
    """A JPEG 2000 header that claims 60,000 × 60,000 inside a 512 × 512 data set is refused unread."""
    start = head.index(b"\xff\x4f\xff\x51")
    lying = bytearray(head)
    struct.pack_into(">2I", lying, start + 8, 60_000, 60_000)
    with pytest.raises(NotAnalysable) as refused:
        first_hu(bytes(lying))
    assert refused.value.reason is Reason.PIXELS_UNDECODABLE
    assert "size" in refused.value.detail


def test_a_decoder_that_cannot_be_had_is_not_the_images_fault(head: bytes) -> None:
    """PeerAway stays PeerAway: a worker that stops, or cannot start a process, hands the image back unblamed."""

    def away(frame: object) -> Any:
        raise PeerAway("decoder", "closed")

    with pytest.raises(PeerAway):
        next(frames_of(opened(head), BUDGET, away))


def test_deflate_bomb_stops_at_the_budget() -> None:
    """A hundred kilobytes that inflate to 100 MB are not inflated."""
    body = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = body.compress(bytes(100 << 20)) + body.flush()
    syntax = b"1.2.840.10008.1.2.1.99"
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    with pytest.raises(NotAnalysable) as refused:
        opened(bytes(128) + b"DICM" + meta + deflated, Budget(1 << 20, 1 << 20))
    assert refused.value.reason is Reason.PIXELS_OVER_BUDGET


@pytest.mark.parametrize("keep", [0, 100, 5_000])
def test_short_pixel_data_is_undecodable(small_head: bytes, keep: int) -> None:
    """A truncated instance is never scored with the missing part as zeros."""

    def cut(data: Dataset) -> None:
        data.PixelData = data.PixelData[:keep]

    with pytest.raises(NotAnalysable) as refused:
        first_hu(changed(small_head, cut))
    assert refused.value.reason is Reason.PIXELS_UNDECODABLE


@pytest.mark.parametrize("payload", [b"", b"no DICOM at all", bytes(200), bytes(128) + b"DICM" + b"\x02\x00\x10"])
def test_what_is_not_dicom_is_unreadable(payload: bytes) -> None:
    """Every other payload has a reason too."""
    with pytest.raises(NotAnalysable) as refused:
        opened(payload)
    assert refused.value.reason is Reason.RECORD_UNREADABLE


def test_enhanced_ct_gives_one_frame_for_each_with_its_own_position(sample: Callable[[str], bytes]) -> None:
    """Functional groups: spacing and orientation shared, position per frame."""
    instance = opened(sample("eCT_Supplemental.dcm"))
    facts = [instance.frame_facts(number) for number in range(instance.facts.frames)]
    frames = list(frames_of(instance, BUDGET))
    assert [frame.shape for frame in frames] == [(512, 512)] * 2
    assert [frame.spacing_mm for frame in facts] == [(0.388672, 0.388672)] * 2
    assert [frame.thickness_mm for frame in facts] == [10.0] * 2
    positions = [frame.position_mm for frame in facts if frame.position_mm is not None]
    assert [abs(after - before) for before, after in pairwise(positions)] == pytest.approx([10.0])
    assert facts[0].image_type == ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 60))
def test_damaged_bytes_give_frames_or_a_reason(head: bytes, seed: int, flips: int) -> None:
    """Whatever bits fall over, nothing but NotAnalysable comes out."""
    generator = np.random.default_rng(seed)
    damaged = np.frombuffer(head[:40_000], dtype=np.uint8).copy()
    damaged[generator.integers(0, len(damaged), flips)] = generator.integers(0, 256, flips)
    reason = None
    try:
        first_hu(damaged.tobytes())
    except NotAnalysable as problem:
        reason = problem.reason
    assert reason is None or reason.category is Category.FAILED


def outcome_of(payload: bytes) -> str:
    """``scored`` and the number of frames, or the reason."""
    try:
        instance = opened(payload)
        way = way_of(instance.facts)
        for number, stored in enumerate(frames_of(instance, BUDGET)):
            facts = instance.frame_facts(number)
            check_frame(facts, instance.facts, way.route)
            check_content(hounsfield(stored, facts, instance.data), facts, way)
    except NotAnalysable as problem:
        return problem.reason.value
    return f"scored {instance.facts.frames}"


EXPECTED = {
    "J2K_pixelrep_mismatch.dcm": "scored 1",
    "693_J2KR.dcm": "scored 1",  # a head that no tag names
    "693_UNCR.dcm": "scored 1",
    "CT_small.dcm": "spacing_out_of_scope",
    "explicit_VR-UN.dcm": "body_part_out_of_scope",
    "bad_sequence.dcm": "body_part_out_of_scope",
    "eCT_Supplemental.dcm": "derived",
    "MR_small.dcm": "modality_out_of_scope",
    "RG1_UNCR.dcm": "modality_out_of_scope",
    "emri_small.dcm": "modality_out_of_scope",
    "SC_rgb.dcm": "secondary_capture",
    "rtplan.dcm": "not_an_image",
    "reportsi.dcm": "not_an_image",
}


@pytest.mark.filterwarnings("ignore")
def test_every_file_of_pydicom_is_scored_or_has_a_reason() -> None:
    """Nothing but NotAnalysable comes out of any file, and the heads are the ones that are scored."""
    files = [Path(file) for file in get_testdata_files("*.dcm")]
    outcomes = {file.name: outcome_of(file.read_bytes()) for file in files if file.is_file()}
    assert len(outcomes) > 100
    there = {name: outcome for name, outcome in EXPECTED.items() if name in outcomes}
    assert {name: outcomes[name] for name in there} == there
    scored = {name for name, outcome in outcomes.items() if outcome.startswith("scored")}
    assert scored <= {"J2K_pixelrep_mismatch.dcm", *(name for name in outcomes if name.startswith("693_"))}
