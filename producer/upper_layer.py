"""What a PDU holds, counted before the library makes objects of it (PS3.8 9.3), and whether a command set is one."""

from struct import Struct

from producer.elements import LITTLE, UNDEFINED, Level, head

ASSOCIATE_RQ, P_DATA = 0x01, 0x04  # PS3.8 9.3.1
N_EVENT_REPORT_RQ = 0x0100  # PS3.7 E.1
C_STORE_RQ = 0x0001

FIXED_BYTES = 68  # of an A-ASSOCIATE-RQ, before its items: version, titles, reserved (PS3.8 table 9-11)
CONTEXT_ITEM, USER_ITEM = 0x20, 0x50
CONTEXT_BYTES = 4  # of a presentation context item, before its sub-items (PS3.8 table 9-13)
COMMAND_FIELD = 0x00000100

_ITEM, _PDV = Struct(">BBH"), Struct(">LBB")


class Malformed(Exception):
    """Not what the standard says, or more of it than anybody needs."""


def check_associate(body: bytes | bytearray, most_items: int) -> None:
    """An A-ASSOCIATE-RQ without its six leading bytes. Raises Malformed over the count, or where items do not fit."""
    if len(body) < FIXED_BYTES:
        raise Malformed
    left = most_items - _items(body, FIXED_BYTES, len(body), most_items)
    at = FIXED_BYTES
    while at < len(body):
        kind, _, length = _ITEM.unpack_from(body, at)
        start = at + _ITEM.size + (CONTEXT_BYTES if kind == CONTEXT_ITEM else 0)
        at += _ITEM.size + length
        if kind in (CONTEXT_ITEM, USER_ITEM):
            left -= _items(body, start, at, left)


def _items(body: bytes | bytearray, at: int, end: int, most: int) -> int:
    count = 0
    while at < end:
        count += 1
        if count > most or at + _ITEM.size > end:
            raise Malformed
        at += _ITEM.size + _ITEM.unpack_from(body, at)[2]
    if at != end:
        raise Malformed
    return count


def check_data(body: bytes | bytearray, most: int) -> None:
    """A P-DATA-TF without its six leading bytes. Raises Malformed over the count, or where a PDV does not fit."""
    at = count = 0
    while at < len(body):
        count += 1
        if count > most or at + _PDV.size > len(body):
            raise Malformed
        length = _PDV.unpack_from(body, at)[0]
        if length < 2:  # noqa: PLR2004 - context ID and control header (PS3.8 9.3.5.1)
            raise Malformed
        at += 4 + length
    if at != len(body):
        raise Malformed


def command_field(encoded: bytes, most_elements: int) -> int:
    """The Command Field of a command set: implicit little endian, flat and short (PS3.7 6.3). Raises Malformed."""
    level, at, field = Level(encoded, implicit=True, order=LITTLE, limit=len(encoded)), 0, -1
    for _ in range(most_elements):
        element = head(level, at)
        if element is None:
            break
        if element.tag >> 16 or element.length == UNDEFINED or element.at + element.length > len(encoded):
            raise Malformed
        if element.tag == COMMAND_FIELD:
            field = int.from_bytes(encoded[element.at : element.at + 2], "little")
        at = element.at + element.length
    if at != len(encoded) or field < 0:
        raise Malformed
    return field
