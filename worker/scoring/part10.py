"""Part 10 bytes → data set, with inflation and the number of elements bounded (PS3.10 7.1, PS3.5 7, A.5). Pure.

pydicom makes an object of every element and item. It reads sequences of undefined length at once, by recursion, which
Python itself bounds; those of known length when they are first asked for. Here the ones that ``facts`` asks for are
read at once too, so that all of them count against one cap; other values that are large are left out.
"""

import struct
import zlib
from io import BytesIO

from pydicom import Dataset, Sequence, dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.filereader import read_sequence

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from worker.scoring.facts import PIXELS, SEQUENCES

_PREAMBLE_BYTES = 128
_META_START = _PREAMBLE_BYTES + 4  # after "DICM"
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_TRANSFER_SYNTAX_UID = (0x0002, 0x0010)
DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"
RATIO_SLACK_BYTES = 64 * 1024  # an almost empty data set may deflate by any ratio
_READS_PER_ELEMENT = 3  # head, long length, value
_VALUE_BYTES = 64 * 1024  # of a value that is neither pixels nor a sequence: nothing we ask for comes near
_SEQUENCE_TAGS = frozenset(tag_for_keyword(name) for name in SEQUENCES)
_PIXEL_TAGS = frozenset(tag_for_keyword(name) for name in PIXELS) | {0x7FE00001, 0x7FE00002}  # and their offsets


class _Counted(BytesIO):
    """Gives up when it was asked too often: each element is at least one question."""

    def __init__(self, content: bytes, left: list[int]) -> None:
        super().__init__(content)
        self._left = left

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file."""
        self._left[0] -= 1
        if self._left[0] < 0:
            raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, "too many elements")
        return super().read(size)


def parse(payload: bytes, limits: LimitSettings) -> Dataset:
    """The data set, pixel data left encoded.

    Raises NotAnalysable: RECORD_UNREADABLE for what is not DICOM, PIXELS_OVER_BUDGET for one that inflates beyond the
    limits or has more elements.
    """
    left = [limits.elements * _READS_PER_ELEMENT]
    try:
        data = dcmread(_Counted(inflated(payload, limits), left))
        _open(data, left, limits.sequence_depth)
    except NotAnalysable:
        raise
    except Exception as problem:  # pydicom raises whatever its parser trips over, hostile bytes included
        raise NotAnalysable(Reason.RECORD_UNREADABLE, type(problem).__name__) from problem
    return data


def _open(data: Dataset, left: list[int], depth: int) -> None:
    """Reads the sequences that will be asked for, and drops large values that will not be."""
    if not depth:
        raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, "sequences within sequences")
    for tag in list(data.keys()):
        element = data.get_item(tag)
        if tag in _SEQUENCE_TAGS:
            for item in _items(data, element, left):
                _open(item, left, depth - 1)
        elif tag not in _PIXEL_TAGS and isinstance(element, RawDataElement) and _is_large(element):
            del data[tag]


def _is_large(element: RawDataElement) -> bool:
    return len(element.value or b"") > _VALUE_BYTES


def _items(data: Dataset, element: RawDataElement | DataElement | None, left: list[int]) -> list[Dataset]:
    """A sequence's items, read now where they were not."""
    if isinstance(element, RawDataElement) and isinstance(element.value, bytes):
        file, encoding = _Counted(element.value, left), data._character_set  # noqa: SLF001 (as pydicom's own reader)
        how = (element.is_implicit_VR, element.is_little_endian, len(element.value), encoding, element.value_tell)
        data[element.tag] = element = DataElement(element.tag, "SQ", read_sequence(file, *how))
    value = element.value if element is not None else None
    return list(value) if isinstance(value, Sequence) else []


def inflated(payload: bytes, limits: LimitSettings) -> bytes:
    """The payload, or for the deflated transfer syntax the same data set as Explicit VR Little Endian."""
    transfer_syntax, start = meta_of(payload)
    if transfer_syntax != DEFLATED:
        return payload
    most_bytes = min(limits.inflated_bytes, limits.inflate_ratio * (len(payload) - start) + RATIO_SLACK_BYTES)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(memoryview(payload)[start:], most_bytes)
    if inflater.unconsumed_tail or inflater.decompress(b"", 1):
        raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, "inflates beyond the budget")
    return _with_plain_meta(body)


def meta_of(payload: bytes) -> tuple[str, int]:
    """Transfer syntax and the data set's first byte. The File Meta group is Explicit VR Little Endian, always."""
    transfer_syntax, at = "", _META_START
    while payload[at : at + 2] == b"\x02\x00":
        group, element, vr = struct.unpack_from("<HH2s", payload, at)
        layout, skip = ("<I", 8) if vr in _LONG_VRS else ("<H", 6)
        (length,) = struct.unpack_from(layout, payload, at + skip)
        value_at = at + skip + struct.calcsize(layout)
        if (group, element) == _TRANSFER_SYNTAX_UID:
            transfer_syntax = payload[value_at : value_at + length].rstrip(b"\0 ").decode("ascii", "replace")
        at = value_at + length
    return transfer_syntax, at


def _with_plain_meta(body: bytes) -> bytes:
    element = struct.pack("<HH2sH", *_TRANSFER_SYNTAX_UID, b"UI", len(_EXPLICIT_LITTLE)) + _EXPLICIT_LITTLE
    group_length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(element))
    return bytes(_PREAMBLE_BYTES) + b"DICM" + group_length + element + body
