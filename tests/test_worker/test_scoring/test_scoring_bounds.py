"""What a record may cost before it is known to be good: elements, items, depth, inflation, frames, fragments."""

import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from worker.scoring.decode import Budget, frames_of, read

SEQUENCE, ITEM = 0x52009230, b"\xfe\xff\x00\xe0"  # PerFrameFunctionalGroupsSequence; an item's tag
UNDEFINED = 0xFFFFFFFF
EXPLICIT = b"1.2.840.10008.1.2.1"
LIMITS = LimitSettings(elements=20_000, sequence_depth=8, frames=1_000, inflate_ratio=50, inflated_bytes=1 << 20)
BUDGET = Budget(1 << 30, 64 << 20, LIMITS)


def part10(body: bytes, syntax: bytes = EXPLICIT) -> bytes:
    """A file with that data set."""
    syntax += b"\0" * (len(syntax) % 2)
    return bytes(128) + b"DICM" + struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax + body


def long_element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """Explicit VR, with a length of four bytes."""
    size = len(value) if length is None else length
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, size) + value


def empty_item() -> bytes:
    """An item with nothing in it."""
    return ITEM + struct.pack("<L", 0)


def refused(payload: bytes, budget: Budget = BUDGET) -> Reason:
    """Why it is not opened, or its frames not decoded."""
    with pytest.raises(NotAnalysable) as caught:
        list(frames_of(read(payload, "", budget), budget))
    return caught.value.reason


@pytest.mark.parametrize("vr", [b"SQ", b"UN"])
@pytest.mark.parametrize("length", [None, UNDEFINED], ids=["known", "undefined"])
def test_a_sequence_of_a_million_empty_items_is_over_budget(vr: bytes, length: int | None) -> None:
    """Eight megabytes of items would be gigabytes of objects, however their length is told."""
    payload = part10(long_element(SEQUENCE, vr, empty_item() * 1_000_000, length))
    assert refused(payload) is Reason.PIXELS_OVER_BUDGET


def test_a_million_empty_elements_are_over_budget() -> None:
    """The same, flat."""
    elements = b"".join(struct.pack("<HH2sH", 9, number & 0xFFFF, b"LO", 0) for number in range(100_000)) * 10
    assert refused(part10(elements)) is Reason.PIXELS_OVER_BUDGET


def test_items_hidden_in_items_are_counted_too() -> None:
    """Many sequences, each of which is small, add up."""
    inner = ITEM + struct.pack("<L", 8 * 100 + 12) + long_element(SEQUENCE, b"SQ", empty_item() * 100)
    assert refused(part10(long_element(SEQUENCE, b"SQ", inner * 1_000))) is Reason.PIXELS_OVER_BUDGET


@pytest.mark.parametrize("length", [None, UNDEFINED], ids=["known", "undefined"])
def test_sequences_nested_without_end_are_refused_in_any_thread(length: int | None) -> None:
    """Ten thousand levels end neither the stack nor the process."""
    value = b""
    if length is None:
        for _ in range(1_000):
            inner = long_element(SEQUENCE, b"SQ", value)
            value = ITEM + struct.pack("<L", len(inner)) + inner
        body = long_element(SEQUENCE, b"SQ", value)
    else:
        body = (long_element(SEQUENCE, b"SQ", b"", UNDEFINED) + ITEM + struct.pack("<L", UNDEFINED)) * 100_000
    with ThreadPoolExecutor(1) as thread:
        reason = thread.submit(refused, part10(body)).result()
    assert reason in (Reason.PIXELS_OVER_BUDGET, Reason.RECORD_UNREADABLE)


def test_a_large_value_that_nothing_asks_for_is_not_kept(small_head: bytes) -> None:
    """A text of megabytes would be split into millions of words; the pixels stay, whatever their size."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.add_new(0x00091010, "UN", bytes(1 << 20))
    data.add_new(0x00204000, "LT", "A\\" * 100_000)
    out = BytesIO()
    data.save_as(out)
    instance = read(out.getvalue(), "", Budget(1 << 30, 64 << 20))
    assert 0x00091010 not in instance.data
    assert 0x00204000 not in instance.data
    assert len(list(frames_of(instance, BUDGET))) == 1


@pytest.mark.parametrize("size_bytes", [60_000, 10_000_000])
def test_inflation_ends_at_ratio_and_size(size_bytes: int) -> None:
    """The limits of the doors hold for records that came another way."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = squeeze.compress(long_element(0x00091010, b"OB", bytes(size_bytes))) + squeeze.flush()
    payload = part10(body, str(DeflatedExplicitVRLittleEndian).encode())
    if size_bytes > LIMITS.inflated_bytes:
        assert refused(payload) is Reason.PIXELS_OVER_BUDGET
    else:
        read(payload, "", BUDGET)
    assert refused(payload, Budget(1, 1, limits=LimitSettings(inflated_bytes=1_000))) is Reason.PIXELS_OVER_BUDGET


def test_more_frames_than_the_limit_are_refused_before_anything_is_made_for_each(small_head: bytes) -> None:
    """Frames without rows have no bytes, so the memory budget alone would let in any number of them."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.Rows, data.NumberOfFrames = 0, 2_000_000_000
    out = BytesIO()
    data.save_as(out)
    assert refused(out.getvalue()) is Reason.PIXELS_OVER_BUDGET


def test_fragments_are_counted_before_they_are_put_together(small_head: bytes) -> None:
    """Pixel data of a million empty fragments."""
    data = pydicom.dcmread(BytesIO(small_head))
    data.compress(JPEG2000Lossless)
    data.PixelData = empty_item() * 1_000_000
    out = BytesIO()
    data.save_as(out)
    assert refused(out.getvalue()) is Reason.PIXELS_OVER_BUDGET
