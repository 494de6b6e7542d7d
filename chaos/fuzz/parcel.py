"""Several byte strings as one, so that every input of every target is bytes: kept in a file, replayed, shrunk."""

import struct
from collections.abc import Iterable

_LENGTH = struct.Struct(">I")


def pack(parts: Iterable[bytes]) -> bytes:
    """Each part led by its length."""
    return b"".join(_LENGTH.pack(len(part)) + part for part in parts)


def unpack(parcel: bytes) -> list[bytes]:
    """The parts; a cut one ends where the bytes end."""
    parts, at = [], 0
    while at + _LENGTH.size <= len(parcel):
        (length,) = _LENGTH.unpack_from(parcel, at)
        parts.append(parcel[at + _LENGTH.size : at + _LENGTH.size + length])
        at += _LENGTH.size + length
    return parts
