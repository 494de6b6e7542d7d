"""DICOM data elements as values (PS3.5 7.1): read from a sound file, changed, written again with whatever is wrong."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

UNDEFINED = 0xFFFFFFFF
LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class Element:
    """One element. ``length`` is what its header claims, where that is not the value's own."""

    tag: int
    vr: bytes
    value: bytes
    length: int | None = None


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements are written: VR in the header or not, byte order."""

    implicit: bool = False
    big_endian: bool = False

    @property
    def order(self) -> str:
        """For ``struct``."""
        return ">" if self.big_endian else "<"


EXPLICIT_LITTLE = Encoding()


class Unreadable(Exception):
    """Not a sound data set: such a file is only damaged as bytes."""


def written(elements: Iterable[Element], encoding: Encoding = EXPLICIT_LITTLE) -> bytes:
    """The elements as bytes, in the order given."""
    return b"".join(_written(element, encoding) for element in elements)


def _written(element: Element, encoding: Encoding) -> bytes:
    order, length = encoding.order, len(element.value) if element.length is None else element.length
    tag = struct.pack(f"{order}HH", element.tag >> 16, element.tag & 0xFFFF)
    if encoding.implicit or element.tag >> 16 == 0xFFFE:  # noqa: PLR2004 - items carry no VR
        return tag + struct.pack(f"{order}I", length & UNDEFINED) + element.value
    if element.vr in LONG_VRS:
        return tag + element.vr + b"\0\0" + struct.pack(f"{order}I", length & UNDEFINED) + element.value
    return tag + element.vr[:2].ljust(2) + struct.pack(f"{order}H", length & 0xFFFF) + element.value


def read(data: bytes, encoding: Encoding) -> tuple[Element, ...]:
    """The top-level elements. Raises Unreadable where they do not end where the bytes end."""
    found, at = [], 0
    try:
        while at < len(data):
            element, at = _read(data, at, encoding)
            found.append(element)
    except struct.error:
        raise Unreadable from None
    if at != len(data):
        raise Unreadable
    return tuple(found)


def _read(data: bytes, at: int, encoding: Encoding) -> tuple[Element, int]:
    tag, vr, length, begin = _header(data, at, encoding)
    if length != UNDEFINED:
        return Element(tag, vr, data[begin : begin + length]), begin + length
    end = _end(data, begin, encoding)
    return Element(tag, vr, data[begin:end], UNDEFINED), end


def _header(data: bytes, at: int, encoding: Encoding) -> tuple[int, bytes, int, int]:
    """Tag, VR, claimed length, where the value begins."""
    order = encoding.order
    group, number = struct.unpack_from(f"{order}HH", data, at)
    tag = group << 16 | number
    if encoding.implicit or group == 0xFFFE:  # noqa: PLR2004 - items carry no VR
        return tag, b"UN", struct.unpack_from(f"{order}I", data, at + 4)[0], at + 8
    vr = data[at + 4 : at + 6]
    if vr in LONG_VRS:
        return tag, vr, struct.unpack_from(f"{order}I", data, at + 8)[0], at + 12
    return tag, vr, struct.unpack_from(f"{order}H", data, at + 6)[0], at + 8


def _end(data: bytes, at: int, encoding: Encoding) -> int:
    """One beyond the delimiter that ends an undefined length, which began at ``at`` (PS3.5 7.5)."""
    while True:
        tag, _, length, begin = _header(data, at, encoding)
        if tag in (SEQUENCE_END, ITEM_END):
            return begin
        at = _end(data, begin, encoding) if length == UNDEFINED else begin + length


def item(content: bytes, encoding: Encoding, length: int | None = None) -> bytes:
    """One item around encoded content; of undefined length where ``length`` says so."""
    closing = written([Element(ITEM_END, b"", b"")], encoding) if length == UNDEFINED else b""
    return written([Element(ITEM, b"", content, length)], encoding) + closing


def nested(depth: int, encoding: Encoding, *, defined: bool) -> Element:
    """A sequence in a sequence … ``depth`` deep, with or without defined lengths."""
    content = b""
    for _ in range(depth):
        inside = item(content, encoding, None if defined else UNDEFINED)
        content = written([_sequence(inside, encoding, defined=defined)], encoding)
    return _sequence(item(content, encoding), encoding, defined=defined)


def _sequence(items: bytes, encoding: Encoding, *, defined: bool) -> Element:
    if defined:
        return Element(0x00081140, b"SQ", items)  # ReferencedImageSequence
    return Element(0x00081140, b"SQ", items + written([Element(SEQUENCE_END, b"", b"")], encoding), UNDEFINED)


def encapsulated(fragments: Sequence[bytes], table: bytes, claims: Sequence[int | None]) -> bytes:
    """Pixel data as fragments behind an offset table (PS3.5 A.4); ``claims`` are what the items say of their length."""
    told = [*claims, *[None] * len(fragments)]
    parts = [Element(ITEM, b"", table)]
    parts += [Element(ITEM, b"", fragment, claim) for fragment, claim in zip(fragments, told, strict=False)]
    return written([*parts, Element(SEQUENCE_END, b"", b"")])
