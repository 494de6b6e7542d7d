"""Part 10 bytes → data set, with inflation bounded (PS3.10 7.1, PS3.5 A.5). Pure."""

import struct
import zlib
from io import BytesIO

from pydicom import Dataset, dcmread

from contracts.errors import NotAnalysable
from contracts.reasons import Reason

_PREAMBLE_BYTES = 128
_META_START = _PREAMBLE_BYTES + 4  # after "DICM"
_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_TRANSFER_SYNTAX_UID = (0x0002, 0x0010)
DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT_LITTLE = b"1.2.840.10008.1.2.1\0"


def parse(payload: bytes, budget_bytes: int) -> Dataset:
    """The data set, pixel data left encoded.

    Raises NotAnalysable: RECORD_UNREADABLE for what is not DICOM, PIXELS_OVER_BUDGET for a deflated data set that
    inflates beyond ``budget_bytes``.
    """
    try:
        return dcmread(BytesIO(inflated(payload, budget_bytes)))
    except NotAnalysable:
        raise
    except Exception as problem:  # pydicom raises whatever its parser trips over, hostile bytes included
        raise NotAnalysable(Reason.RECORD_UNREADABLE, type(problem).__name__) from problem


def inflated(payload: bytes, budget_bytes: int) -> bytes:
    """The payload, or for the deflated transfer syntax the same data set as Explicit VR Little Endian."""
    transfer_syntax, start = meta_of(payload)
    if transfer_syntax != DEFLATED:
        return payload
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    body = inflater.decompress(payload[start:], budget_bytes)
    if inflater.unconsumed_tail:
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
