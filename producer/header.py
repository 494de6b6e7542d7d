"""The header of one DICOM object, read from its Part 10 bytes: nothing is decoded, nothing is changed.

pydicom walks the elements; values are interpreted here, because pydicom's own validation warns with the value in the
text, and a birth date has no place in a log. Sizes are checked before anything is inflated (PS3.5 A.5).
"""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import Any, Literal

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_has_tag, dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import TEXT_VR_DELIMS

from contracts.errors import Rejected, TriageError
from contracts.reasons import Reason

IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})  # the second: GE private, implicit little endian
BIG_ENDIAN = frozenset({"1.2.840.10008.1.2.2"})
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
NATIVE = IMPLICIT_VR | BIG_ENDIAN | frozenset({"1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})

PREAMBLE_BYTES = 128  # PS3.10 7.1
UNDEFINED = 0xFFFFFFFF  # PS3.5 7.1.1: undefined length
MAX_INFLATE_RATIO = 100  # CT slices deflate 2- to 4-fold, empty masks some 50-fold; a bomb 1,000-fold
MAX_INFLATED_BYTES = 256 * 1024**2  # and no object may take more than that of our memory
MAX_TEXT = 256  # the longest text we keep: four times LO; PN may hold three groups of 64

META_GROUP = 0x0002
META_TAGS = (0x00020002, 0x00020003, 0x00020010)  # MediaStorageSOPClassUID, …SOPInstanceUID, TransferSyntaxUID
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer pixel data
ITEM, SEQUENCE_END = 0xFFFEE000, 0xFFFEE0DD
CHARACTER_SET = 0x00080005


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What File Meta says (PS3.10 7.1), and where the data set begins in the Part 10 bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int


@dataclass(frozen=True, slots=True)
class Pixels:
    """Where the pixel data's value lies in ``Header.body``. ``length`` is UNDEFINED where it is encapsulated."""

    tag: int
    at: int
    length: int


@dataclass(frozen=True, slots=True)
class Header:
    """The elements asked for, and where the pixel data is. ``body``: the bytes that the offsets point into."""

    meta: FileMeta
    elements: Dataset = field(repr=False)
    body: bytes = field(repr=False)
    little_endian: bool
    pixels: Pixels | None
    cut_short: bool  # an element other than the pixel data is longer than what is left

    def raw(self, tag: int) -> bytes:
        """The value as encoded, padding included; empty where absent or a sequence."""
        value = self.elements.get_item(tag).value if tag in self.elements else b""
        return value if isinstance(value, bytes) else b""

    def uid(self, tag: int) -> str:
        """A UID without its padding; not checked."""
        return self.raw(tag).strip(b" \0").decode("ascii", "replace")

    def text(self, tag: int) -> str:
        """The value as text in the object's character set (PS3.3 C.12.1.1.2), safe to encode as UTF-8."""
        decoded = decode_bytes(self.raw(tag).strip(b" \0"), self._encodings(), TEXT_VR_DELIMS)
        printable = "".join(letter for letter in decoded[:MAX_TEXT] if letter.isprintable())
        return printable.strip().encode("utf-8", "replace").decode()

    def _encodings(self) -> list[str]:
        names = self.raw(CHARACTER_SET).decode("ascii", "replace").split("\\")
        return convert_encodings([name.strip(" \0") for name in names])

    def whole_number(self, tag: int, absent: int) -> int:
        """An IS value (PS3.5 6.2), or an integer of a wrong, binary VR. Raises ValueError where it is neither."""
        if tag in self.elements and self.elements.get_item(tag).VR in ("US", "UL", "SS", "SL"):
            return int.from_bytes(self.raw(tag), "little" if self.little_endian else "big")
        first = self.raw(tag).split(b"\\")[0].strip(b" \0")
        return int(first) if first else absent

    def short(self, tag: int) -> int:
        """A US value, 0 where absent."""
        return int.from_bytes(self.raw(tag)[:2], "little" if self.little_endian else "big")


@contextmanager
def unparsable() -> Iterator[None]:
    """Whatever a parser stumbles over is the object's fault: it has been fed bytes and nothing else."""
    try:
        yield
    except TriageError:
        raise
    except Exception as problem:  # noqa: BLE001 - struct.error, RecursionError, KeyError …: there is no closed list
        raise Rejected(Reason.UNPARSABLE, type(problem).__name__) from None


@unparsable()
def file_meta(part10: bytes) -> FileMeta:
    """Raises Rejected(UNPARSABLE) where preamble, prefix, File Meta or TransferSyntaxUID are missing."""
    if part10[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM":
        raise Rejected(Reason.UNPARSABLE, "no DICM prefix")
    stream = BytesIO(part10)
    stream.seek(PREAMBLE_BYTES + 4)
    meta = read_dataset(stream, is_implicit_VR=False, is_little_endian=True, stop_when=_after_meta)
    sop_class, sop_instance, syntax = (_meta_uid(meta, tag) for tag in META_TAGS)
    if not syntax:
        raise Rejected(Reason.UNPARSABLE, "no TransferSyntaxUID")
    return FileMeta(sop_class, sop_instance, syntax, data_set_at=stream.tell())


def _meta_uid(meta: Dataset, tag: int) -> str:
    value = meta.get_item(tag).value if tag in meta else b""
    return bytes(value or b"").strip(b" \0").decode("ascii", "replace")


def _after_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 != META_GROUP


def _at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    return tag in PIXEL_TAGS


@unparsable()
def read_header(part10: bytes, tags: tuple[int, ...] = ()) -> Header:
    """The named top-level elements (all where none is named) up to the pixel data.

    Raises Rejected: UNPARSABLE, or TOO_LARGE where a deflated data set inflates beyond the caps.
    """
    meta = file_meta(part10)
    syntax = meta.transfer_syntax_uid
    body, start = (_inflate(part10, meta.data_set_at), 0) if syntax in DEFLATED else (part10, meta.data_set_at)
    stream = BytesIO(body)
    stream.seek(start)
    little = syntax not in BIG_ENDIAN
    elements: Dataset = read_dataset(
        stream, syntax in IMPLICIT_VR, little, stop_when=_at_pixels, specific_tags=list(tags) or None
    )
    implicit = bool(elements.original_encoding[0])
    pixels = _pixels(body, stream.tell(), implicit, little)
    return Header(meta, elements, body, little, pixels, cut_short=stream.tell() > len(body) or _last_is_cut(elements))


def _inflate(part10: bytes, start: int) -> bytes:
    limit = min(MAX_INFLATED_BYTES, MAX_INFLATE_RATIO * (len(part10) - start) + 1024)
    machine = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = machine.decompress(memoryview(part10)[start:], limit)
    except zlib.error:
        raise Rejected(Reason.UNPARSABLE, "not deflated") from None
    if machine.unconsumed_tail:
        raise Rejected(Reason.TOO_LARGE, "inflates beyond the cap")
    return body


def _last_is_cut(elements: Dataset) -> bool:
    last = elements.get_item(max(elements.keys())) if len(elements) else None
    value = getattr(last, "value", None)
    length = getattr(last, "length", 0)
    return isinstance(value, bytes) and length not in (UNDEFINED, None) and len(value) < length


def _pixels(body: bytes, at: int, implicit: bool, little_endian: bool) -> Pixels | None:  # noqa: FBT001 - read_header's own
    """The element header at ``at`` (PS3.5 7.1.2, 7.1.3), if one is there."""
    order: Literal["little", "big"] = "little" if little_endian else "big"
    size = 8 if implicit else 12
    head = body[at : at + size]
    if len(head) < size:
        return None
    tag = int.from_bytes(head[:2], order) << 16 | int.from_bytes(head[2:4], order)
    return Pixels(tag, at + size, int.from_bytes(head[-4:], order)) if tag in PIXEL_TAGS else None


def pixel_values(header: Header) -> tuple[list[memoryview], bool]:
    """The pixel data as encoded, and whether it is whole.

    Native: one view. Encapsulated: the fragments without the Basic Offset Table, which a sender may rewrite
    (PS3.5 A.4).
    """
    if header.pixels is None:
        return [], False
    if header.pixels.length != UNDEFINED:
        view = memoryview(header.body)[header.pixels.at : header.pixels.at + header.pixels.length]
        return [view], len(view) == header.pixels.length
    fragments = list(_fragments(header.body, header.pixels.at))
    ended = bool(fragments) and fragments[-1] is None
    return [fragment for fragment in fragments[1:] if fragment is not None], ended


def _fragments(body: bytes, at: int) -> Iterator[memoryview | None]:
    """Items of an encapsulated pixel data element, always little endian (PS3.5 A.4); None at the delimiter."""
    view = memoryview(body)
    while at + 8 <= len(body):
        tag = int.from_bytes(body[at : at + 2], "little") << 16 | int.from_bytes(body[at + 2 : at + 4], "little")
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        if tag == SEQUENCE_END:
            yield None
            return
        if tag != ITEM or at + 8 + length > len(body):
            return
        yield view[at + 8 : at + 8 + length]
        at += 8 + length


def data_set_digest(part10: bytes, meta: FileMeta) -> str:
    """SHA-256 (hex) of the data set as encoded, without preamble and File Meta."""
    return sha256(memoryview(part10)[meta.data_set_at :]).hexdigest()


def values(elements: Dataset, little_endian: bool, leave_out: frozenset[int] = frozenset()) -> Iterator[bytes]:  # noqa: FBT001
    """Tags and values, depth first, the same whatever VR encoding, sequence lengths or padding they came in."""
    for tag in sorted(elements.keys()):
        if int(tag) in leave_out or int(tag) & 0xFFFF == 0:  # group lengths follow the encoding (PS3.5 7.2)
            continue
        element = elements.get_item(tag)
        vr = _vr(element)
        yield int(tag).to_bytes(4, "big")
        if vr == "SQ":
            for item in elements[tag].value or ():
                yield b"("
                yield from values(item, little_endian, leave_out)
                yield b")"
        else:
            yield _canonical(vr, element.value, little_endian)


def _vr(element: Any) -> str:
    vr = str(element.VR or "UN")
    known = vr == "UN" and dictionary_has_tag(element.tag)
    return dictionary_VR(element.tag) if known else vr


def _canonical(vr: str, value: Any, little_endian: bool) -> bytes:  # noqa: FBT001
    """0.5, 0.50 and 5e-1 are one number; text loses its padding; everything else stays as it came."""
    raw = value if isinstance(value, bytes) else repr(value).encode() if value else b""
    if vr in ("DS", "IS"):
        return b"\\".join(_number(part) for part in raw.split(b"\\"))
    if vr in ("US", "SS", "US or SS") and not little_endian:
        raw = b"".join(raw[i : i + 2][::-1] for i in range(0, len(raw), 2))
    return raw.rstrip(b" \0") if vr not in ("US", "SS", "US or SS") else raw


def _number(part: bytes) -> bytes:
    try:
        return repr(float(part.strip(b" \0"))).encode()
    except ValueError:
        return part.strip(b" \0")
