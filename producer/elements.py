"""One element of an encoded data set: tag, VR, length, where its value lies (PS3.5 7). Nothing is decoded.

Where writers break the standard it is as lenient as pydicom, which reads the object again when it is scored: implicit
VR where explicit was announced, items that switch to it, UN that is a sequence (PS3.5 6.2.2 note 3).
"""

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from pydicom.datadict import DicomDictionary
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

UNDEFINED = 0xFFFFFFFF  # PS3.5 7.1.1: undefined length
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

_LONG = {str(vr).encode(): (str(vr), True) for vr in EXPLICIT_VR_LENGTH_32}
_VRS = {str(vr).encode(): (str(vr), False) for vr in EXPLICIT_VR_LENGTH_16} | _LONG
_KNOWN: dict[int, str] = {tag: str(entry[0]) for tag, entry in DicomDictionary.items()}  # PS3.6: tag → VR


class Order(NamedTuple):
    """Byte order of a data set, as unpackers of: tag and length; tag, VR and length; a long length."""

    little_endian: bool
    implicit: Callable[..., tuple[int, int, int]]
    explicit: Callable[..., tuple[int, int, bytes, int]]
    long: Callable[..., tuple[int]]


def _order(sign: str) -> Order:
    heads = (f"{sign}HHL", f"{sign}HH2sH", f"{sign}L")
    return Order(sign == "<", *(Struct(head).unpack_from for head in heads))


LITTLE, BIG = _order("<"), _order(">")


class Element(NamedTuple):
    """One element: ``vr`` is empty where the encoding is implicit. Value: ``body[at:end]``; ``length`` as encoded."""

    tag: int
    vr: str
    length: int
    at: int
    end: int


@dataclass(frozen=True, slots=True)
class Level:
    """A data set within ``body``: how it is encoded and where it must end."""

    body: bytes
    implicit: bool
    order: Order
    limit: int


def head(level: Level, at: int) -> Element | None:
    """The element at ``at``, its value not yet looked at (``end`` equals ``at``); None where too few bytes are left."""
    body, order = level.body, level.order
    if at + 8 > level.limit:
        return None
    if not level.implicit:
        group, number, vr, length = order.explicit(body, at)
        known = _VRS.get(vr)
        if known is None and b"AA" <= vr <= b"ZZ":  # of a later standard: pydicom takes two length bytes, too
            return Element(group << 16 | number, vr.decode("latin-1"), length, at + 8, at + 8)
        if known is not None and not known[1]:
            return Element(group << 16 | number, known[0], length, at + 8, at + 8)
        if known is not None:
            if at + 12 > level.limit:
                return None
            return Element(group << 16 | number, known[0], order.long(body, at + 8)[0], at + 12, at + 12)
    group, number, length = order.implicit(body, at)
    return Element(group << 16 | number, "", length, at + 8, at + 8)


def level_at(body: bytes, at: int, limit: int, order: Order, *, implicit: bool, within: bool = False) -> Level:
    """The data set that begins at ``at``. Its first VR tells what it is, whatever was announced.

    ``within`` a sequence, explicit may turn implicit but not the other way round (as pydicom reads it).
    """
    if not (within and implicit) and at + 6 <= limit:
        implicit = not (0x40 < body[at + 4] < 0x5B and 0x40 < body[at + 5] < 0x5B)  # noqa: PLR2004 - "A" to "Z"
    return Level(body, implicit, order, limit)


def vr_of(element: Element) -> str:
    """The VR, by the dictionary where the encoding says none or UN; UN where that knows none either."""
    if element.vr not in ("", "UN"):
        return element.vr
    return _KNOWN.get(element.tag, "UN")


def is_sequence(level: Level, element: Element) -> bool:
    """Whether its value is items of data sets."""
    if element.vr == "SQ":
        return True
    if element.vr not in ("", "UN"):
        return False
    if element.length == UNDEFINED and element.vr == "UN":
        return True
    known = _KNOWN.get(element.tag)
    return known == "SQ" if known or element.length != UNDEFINED else item_tag(level, element.at) == ITEM


def item_tag(level: Level, at: int) -> int:
    """The tag at ``at``, by which items and their delimiters are known; 0 where too few bytes are left."""
    if at + 8 > level.limit:
        return 0
    group, number, _ = level.order.implicit(level.body, at)
    return group << 16 | number
