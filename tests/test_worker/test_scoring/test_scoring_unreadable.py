"""Elements whose values cannot be converted, wherever scoring asks for them: the image is told, no code fails."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from worker.scoring.decode import Budget, Instance, frames_of, read
from worker.scoring.facts import frame_facts, instance_facts
from worker.scoring.hounsfield import hounsfield

BUDGET = Budget(1 << 30, 64 << 20)


def with_raw(data: pydicom.Dataset, keyword: str, vr: str, value: bytes) -> pydicom.Dataset:
    """The data set with an element as it came over the wire, not yet converted."""
    tag = Tag(keyword)
    data[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    return data


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("BitsAllocated", "US", b"\x01\x02\x03"),
        ("PixelPaddingValue", "US", b"\x01\x02\x03"),
        ("ImageType", "US", b"\x01\x02\x03"),
        ("Rows", "US", b"\x01"),
        ("SliceThickness", "FD", b"\x01\x02\x03"),
        ("PixelSpacing", "US", b"\x01\x02\x03"),
    ],
)
def test_a_value_that_cannot_be_converted_is_told(head: bytes, keyword: str, vr: str, value: bytes) -> None:
    """Found by fuzzing: three bytes where a number needs two made scoring's own code fail, three times a record."""
    data = with_raw(pydicom.dcmread(BytesIO(head)), keyword, vr, value)
    with pytest.raises(NotAnalysable) as told:
        _all_that_scoring_asks(data, head)
    assert told.value.reason is Reason.RECORD_UNREADABLE


def _all_that_scoring_asks(data: pydicom.Dataset, head: bytes) -> None:
    facts, frame = instance_facts(data), frame_facts(data, 0)
    next(frames_of(Instance(data, facts, read(head, "", BUDGET).transfer_syntax), BUDGET))
    hounsfield(np.zeros((2, 2), dtype=np.int16), frame, data)


@pytest.mark.parametrize("value", [b"\x01\x02", struct.pack("<4H", 1, 2, 3, 4)])
def test_a_sequence_of_another_vr_holds_no_items(value: bytes) -> None:
    """Numbers where functional groups should stand are no groups."""
    data = with_raw(pydicom.Dataset(), "PerFrameFunctionalGroupsSequence", "US", value)
    assert frame_facts(data, 0).spacing_mm is None


@pytest.mark.parametrize(
    ("vr", "value", "words"), [("US", b"\x07\0", ("7",)), ("CS", b"", ()), ("CS", b"a\\b ", ("A", "B"))]
)
def test_an_image_type_of_any_vr_is_words(vr: str, value: bytes, words: tuple[str, ...]) -> None:
    """One value, several, none, or a number."""
    assert instance_facts(with_raw(pydicom.Dataset(), "ImageType", vr, value)).image_type == words


@pytest.mark.parametrize("changes", [{"slope": 1e300}, {"slope": 1e38, "intercept": -1e300}])
def test_a_rescale_that_leaves_no_numbers_is_no_unit(head: bytes, changes: dict[str, Any]) -> None:
    """A slope beyond what a float holds makes zero into no number at all: no model is asked about that."""
    from dataclasses import replace

    facts = replace(frame_facts(pydicom.dcmread(BytesIO(head)), 0), **changes)
    with pytest.raises(NotAnalysable) as told:
        hounsfield(np.array([[0, 30000]], dtype=np.int16), facts, pydicom.Dataset())
    assert told.value.reason is Reason.UNITS_UNKNOWN
