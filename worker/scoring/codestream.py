"""What a compressed frame says of itself, read before anything is decoded: a header may lie about the work to come.

JPEG 2000: ISO 15444-1 A.5.1 (SIZ). JPEG, JPEG-LS: ISO 10918-1 B.2.2, ISO 14495-1 C.2.2 (SOF).
"""

import struct
from dataclasses import dataclass

_SOC, _SIZ = b"\xff\x4f", b"\xff\x51"
_SOI = b"\xff\xd8"
_JP2_BOX = b"jp2c"  # some senders wrap the codestream into a JP2 file
_SOF = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # start of frame; 0xF7 is JPEG-LS
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows, columns and components of a codestream; ``signed`` and ``precision`` (bits) of its first component."""

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False


def shape_of(frame: bytes) -> Shape | None:
    """None for a codestream that carries no such header (RLE, deflated, raw, damaged)."""
    try:
        if frame.startswith(_SOI):
            return _jpeg(frame)
        start = 0 if frame.startswith(_SOC) else frame.find(_JP2_BOX, 0, 4096) + len(_JP2_BOX)
        return _jpeg_2000(frame, start) if frame[start : start + 2] == _SOC else None
    except struct.error:
        return None


def _jpeg_2000(frame: bytes, start: int) -> Shape | None:
    if frame[start + 2 : start + 4] != _SIZ:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, start + 8)
    components, depth = struct.unpack_from(">HB", frame, start + 40)
    return Shape(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))


def _jpeg(frame: bytes) -> Shape | None:
    at = len(_SOI)
    while at < len(frame):
        lead, marker = struct.unpack_from(">BB", frame, at)
        if lead != 0xFF:  # noqa: PLR2004 (every marker begins with 0xFF)
            return None
        if marker in _STANDALONE or marker == lead:
            at += 1 if marker == lead else 2
            continue
        if marker in _SOF:
            precision, rows, columns, components = struct.unpack_from(">BHHB", frame, at + 4)
            return Shape(rows, columns, components, precision)
        at += 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None
