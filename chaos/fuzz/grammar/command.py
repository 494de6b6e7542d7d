"""DIMSE command sets (PS3.7 E): implicit little endian, group 0000, any service, and what may be wrong with them."""

import struct
from collections.abc import Sequence

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.damage import EDGES, damaged

GROUP_LENGTH = 0x00000000
CLASS, FIELD, MESSAGE_ID, RESPONDED, PRIORITY = 0x00000002, 0x00000100, 0x00000110, 0x00000120, 0x00000700
DATA_SET, STATUS, INSTANCE, ACTION, EVENT = 0x00000800, 0x00000900, 0x00001000, 0x00001008, 0x00001002
REQUESTED_CLASS, REQUESTED_INSTANCE, MOVE_AE, ORIGINATOR_ID = 0x00000003, 0x00001001, 0x00001030, 0x00001031
NO_DATA_SET, WITH_DATA_SET = 0x0101, 0x0001

STORE, ECHO = 0x0001, 0x0030
FIELDS = (
    *(STORE, ECHO, 0x0010, 0x0020, 0x0021, 0x0FFF, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150),
    *(0x8001, 0x8030, 0x8010, 0x8020, 0x8021, 0x8100, 0x8110, 0x8120, 0x8130, 0x8140, 0x8150, 0x0000, 0x00FF, 0xFFFF),
)
CT_IMAGE, VERIFICATION, COMMITMENT = b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.1.1", b"1.2.840.10008.1.20.1"
COMMITMENT_INSTANCE = b"1.2.840.10008.1.20.1.1"
UIDS = (
    CT_IMAGE,
    VERIFICATION,
    COMMITMENT,
    b"",
    b"1.2.3",
    b"9" * 64,
    b"1." * 200,
    b"not a uid",
    b"\xff\xfe\0",
    b"1.2\0",
)

Element = tuple[int, bytes]


def commands(dice: Dice, sop_class: bytes = CT_IMAGE, sop_instance: bytes = b"1.2.3") -> bytes:
    """A command set, as often as not a sound C-STORE-RQ."""
    elements = _store(sop_class, sop_instance, dice.whole(1, 65535)) if not dice.chance(3) else _other(dice)
    if dice.chance(2):
        return _with_length(elements)
    for _ in range(dice.whole(1, 3)):
        elements = _wrong(dice, elements)
    made = _with_length(elements, dice.pick(EDGES) if dice.chance(3) else None)
    return damaged(dice, made, 3) if dice.chance(3) else made


def _store(sop_class: bytes, sop_instance: bytes, message: int) -> list[Element]:
    return [
        (CLASS, _even(sop_class)),
        (FIELD, _short(STORE)),
        (MESSAGE_ID, _short(message)),
        (PRIORITY, _short(0)),
        (DATA_SET, _short(WITH_DATA_SET)),
        (INSTANCE, _even(sop_instance)),
    ]


def _other(dice: Dice) -> list[Element]:
    """Any service, with the elements that some of them have."""
    field, uid = dice.pick(FIELDS), dice.pick(UIDS)
    data_set = dice.pick((NO_DATA_SET, WITH_DATA_SET))
    elements = [(CLASS, _even(uid)), (FIELD, _short(field)), (DATA_SET, _short(data_set))]
    elements.append((RESPONDED if field & 0x8000 else MESSAGE_ID, _short(dice.whole(0, 65535))))
    some = (
        *((REQUESTED_CLASS, _even(COMMITMENT)), (REQUESTED_INSTANCE, _even(COMMITMENT_INSTANCE))),
        *((ACTION, _short(dice.whole(0, 3))), (EVENT, _short(dice.whole(0, 3))), (STATUS, _short(dice.pick(EDGES)))),
        *((INSTANCE, _even(dice.pick(UIDS))), (MOVE_AE, dice.octets(20)), (ORIGINATOR_ID, _short(1))),
        (PRIORITY, _short(dice.whole(0, 65535))),
    )
    return sorted([*elements, *(one for one in some if dice.chance(2))])


def _wrong(dice: Dice, elements: Sequence[Element]) -> list[Element]:
    at = dice.whole(0, len(elements) - 1) if elements else 0
    before, here, after = list(elements[:at]), list(elements[at : at + 1]), list(elements[at + 1 :])
    kind = dice.whole(0, 5)
    if kind == 0:
        return before + after
    if kind == 1:
        return before + here * 2 + after
    if kind == 2:  # noqa: PLR2004 - a table of six
        return before + [(tag, dice.octets(9)) for tag, _ in here] + after
    if kind == 3:  # noqa: PLR2004 - as above
        return before + [(tag, bytes(dice.pick((0, 1, 3, 4, 8, 20_000)))) for tag, _ in here] + after
    if kind == 4:  # noqa: PLR2004 - as above
        return [
            *before,
            (dice.pick((0x00000001, 0x00080005, 0xFFFEE000, 0x7FE00010, 0x00009999)), dice.octets(32)),
            *here,
            *after,
        ]
    return list(reversed(elements))


def _with_length(elements: Sequence[Element], claimed: int | None = None) -> bytes:
    body = b"".join(_element(tag, value) for tag, value in elements)
    return _element(GROUP_LENGTH, struct.pack("<I", (len(body) if claimed is None else claimed) & 0xFFFFFFFF)) + body


def _element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _short(value: int) -> bytes:
    return struct.pack("<H", value & 0xFFFF)


def _even(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)
