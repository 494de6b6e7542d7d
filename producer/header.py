"""The header of one DICOM object, read from its Part 10 bytes: nothing is decoded, nothing is changed.

Values are interpreted here, because pydicom's own validation warns with the value in the text, and a birth date has no
place in a log. Sizes are checked before anything is inflated (PS3.5 A.5); elements are counted while they are walked.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Literal

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

from contracts.errors import Rejected, TriageError
from contracts.reasons import Reason
from producer.caps import DEFAULT, Caps, Count, Take, take_freely
from producer.elements import BIG, LITTLE, UNDEFINED, Element, Level, level_at
from producer.inflating import inflated
from producer.walking import check_rest, walk

IMPLICIT_VR = frozenset({"1.2.840.10008.1.2", "1.2.840.113619.5.2"})  # the second: GE private, implicit little endian
BIG_ENDIAN = frozenset({"1.2.840.10008.1.2.2"})
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
NATIVE = IMPLICIT_VR | BIG_ENDIAN | frozenset({"1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})

PREAMBLE_BYTES = 128  # PS3.10 7.1
MAX_TEXT = 256  # the longest text we keep: four times LO; PN may hold three groups of 64
MAX_TEXT_BYTES = 16 * MAX_TEXT  # of which that much is decoded: escape sequences and four bytes a letter

META_GROUP = 0x0002
META_TAGS = (0x00020002, 0x00020003, 0x00020010)  # MediaStorageSOPClassUID, …SOPInstanceUID, TransferSyntaxUID
PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer pixel data
CHARACTER_SET = 0x00080005
_NEARLY = re.compile(r"ISO[^_]IR|ISO.2022.IR.")  # spelt with another blank: pydicom knows what is meant
_UNOFFICIAL = dict.fromkeys(("utf-8", "utf8"), "ISO_IR 192")


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What File Meta says (PS3.10 7.1), and where the data set begins in the Part 10 bytes."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set_at: int


@dataclass(frozen=True, slots=True)
class Header:
    """The elements asked for, and where the pixel data is. ``level``: the encoded data set they lie in.

    ``pixels``: the pixel data's element, ``end`` not yet known.
    """

    meta: FileMeta
    elements: dict[int, Element] = field(repr=False)
    level: Level = field(repr=False)
    start: int
    pixels: Element | None
    cut_short: bool  # something other than the pixel data is longer than what is left

    @property
    def body(self) -> bytes:
        """The bytes that the elements' offsets point into."""
        return self.level.body

    def raw(self, tag: int) -> bytes:
        """The value as encoded, padding included; empty where absent."""
        element = self.elements.get(tag)
        return self.body[element.at : element.end] if element else b""

    def uid(self, tag: int) -> str:
        """A UID without its padding; not checked."""
        return self.raw(tag).strip(b" \0").decode("ascii", "replace")

    def text(self, tag: int) -> str:
        """The value as text in the object's character set (PS3.3 C.12.1.1.2), safe to encode as UTF-8."""
        encoded = self.raw(tag).strip(b" \0")[:MAX_TEXT_BYTES]
        decoded = decode_bytes(encoded, self._encodings(), TEXT_VR_DELIMS)
        printable = "".join(letter for letter in decoded[:MAX_TEXT] if letter.isprintable())
        return printable.strip().encode("utf-8", "replace").decode()

    def _encodings(self) -> list[str]:
        names = self.raw(CHARACTER_SET)[:MAX_TEXT_BYTES].decode("ascii", "replace").split("\\")
        return convert_encodings([_spoken(name.strip(" \0")) for name in names])

    def whole_number(self, tag: int, absent: int) -> int:
        """An IS value (PS3.5 6.2), or an integer of a wrong, binary VR. Raises ValueError where it is neither."""
        if tag in self.elements and self.elements[tag].vr in ("US", "UL", "SS", "SL"):
            return int.from_bytes(self.raw(tag)[:4], self._order())
        first = self.raw(tag)[:MAX_TEXT_BYTES].split(b"\\")[0].strip(b" \0")
        return int(first) if first else absent

    def short(self, tag: int) -> int:
        """A US value, 0 where absent."""
        return int.from_bytes(self.raw(tag)[:2], self._order())

    def _order(self) -> Literal["little", "big"]:
        return "little" if self.level.order.little_endian else "big"


def _spoken(name: str) -> str:
    """A character set that DICOM has, or nearly spells so; else the default repertoire.

    Python would be asked for any other name, takes some that are no character set, and keeps each it does not know.
    """
    return name if name in python_encoding or _NEARLY.match(name) else _UNOFFICIAL.get(name.lower(), "")


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
def file_meta(part10: bytes, caps: Caps = DEFAULT) -> FileMeta:
    """Raises Rejected(UNPARSABLE) where preamble, prefix, File Meta or TransferSyntaxUID are missing."""
    if part10[PREAMBLE_BYTES : PREAMBLE_BYTES + 4] != b"DICM":
        raise Rejected(Reason.UNPARSABLE, "no DICM prefix")
    start = PREAMBLE_BYTES + 4
    level = level_at(part10, start, len(part10), LITTLE, implicit=False)
    found = walk(level, start, Count(caps), _after_meta, frozenset(META_TAGS))
    sop_class, sop_instance, syntax = (_meta_uid(part10, found.elements.get(tag)) for tag in META_TAGS)
    if not syntax:
        raise Rejected(Reason.UNPARSABLE, "no TransferSyntaxUID")
    return FileMeta(sop_class, sop_instance, syntax, data_set_at=min(found.at, len(part10)))


def _meta_uid(part10: bytes, element: Element | None) -> str:
    value = part10[element.at : element.end] if element else b""
    return value.strip(b" \0").decode("ascii", "replace")


def _after_meta(tag: int) -> bool:
    return tag >> 16 != META_GROUP


def _at_pixels(tag: int) -> bool:
    return tag in PIXEL_TAGS


@unparsable()
def read_header(part10: bytes, tags: tuple[int, ...] = (), caps: Caps = DEFAULT, take: Take = take_freely) -> Header:
    """The named top-level elements (all where none is named) up to the pixel data.

    ``take`` is told of every byte that is inflated, and may object. Raises Rejected: UNPARSABLE; TOO_LARGE where a
    deflated data set inflates beyond the caps; TOO_COMPLEX where elements or nested sequences go beyond theirs.
    """
    meta = file_meta(part10, caps)
    syntax = meta.transfer_syntax_uid
    deflated = syntax in DEFLATED
    body, start = (inflated(part10, meta.data_set_at, caps, take), 0) if deflated else (part10, meta.data_set_at)
    order = BIG if syntax in BIG_ENDIAN else LITTLE
    level = level_at(body, start, len(body), order, implicit=syntax in IMPLICIT_VR)
    count = Count(caps)
    found = walk(level, start, count, _at_pixels, frozenset((*tags, CHARACTER_SET)) if tags else frozenset())
    if found.stopped is not None:
        _count_rest(level, found.stopped, count)
    return Header(meta, found.elements, level, start, found.stopped, found.cut_short)


def _count_rest(level: Level, pixels: Element, count: Count) -> None:
    """The pixel data and what stands behind it are counted as well: whoever decodes this object will read them."""
    check_rest(level, pixels.at - (8 if level.implicit or not pixels.vr else 12), count)


@dataclass(slots=True)
class PixelValues:
    """The pixel data as encoded, given piece by piece; ``whole`` is known once all pieces were given.

    Native: one piece. Encapsulated: the fragments without the Basic Offset Table, which a sender may rewrite
    (PS3.5 A.4).
    """

    header: Header
    whole: bool = False

    def __iter__(self) -> Iterator[memoryview]:
        """Views of the header's body."""
        pixels = self.header.pixels
        if pixels is None:
            return
        if pixels.length == UNDEFINED:
            yield from self._fragments(pixels.at)
            return
        view = memoryview(self.header.body)[pixels.at : pixels.at + pixels.length]
        self.whole = len(view) == pixels.length
        yield view

    def _fragments(self, at: int) -> Iterator[memoryview]:
        """Items of an encapsulated pixel data element, always little endian (PS3.5 A.4)."""
        view, first = memoryview(self.header.body), True
        while at + 8 <= len(view):
            group, number, length = LITTLE.implicit(view, at)
            if (group, number) == (0xFFFE, 0xE0DD):
                self.whole = not first
                return
            if (group, number) != (0xFFFE, 0xE000) or at + 8 + length > len(view):
                return
            if not first:
                yield view[at + 8 : at + 8 + length]
            first = False
            at += 8 + length


def data_set_digest(part10: bytes, meta: FileMeta) -> str:
    """SHA-256 (hex) of the data set as encoded, without preamble and File Meta."""
    return sha256(memoryview(part10)[meta.data_set_at :]).hexdigest()
