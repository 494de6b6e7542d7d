"""What a peer may put on the wire of an association (PS3.8 9.3): PDUs, items, PDVs, messages, made wrong at will."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.command import CT_IMAGE, UIDS, VERIFICATION, commands
from chaos.fuzz.grammar.damage import EDGES, damaged, truncated

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, P_DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
SYNTAXES = (b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.4.90", b"", b"9" * 70, b"\xff")
MOST_CONTEXTS = 128  # odd ids 1…255
FRAGMENT_BYTES = 16_000
MOST_FLOOD = 400  # PDVs or PDUs of next to nothing
_HEADER_BYTES = 132


@dataclass(frozen=True, slots=True)
class Objects:
    """Data sets to send: (SOP class, SOP instance, transfer syntax, encoded) by a choice of the dice."""

    choose: Callable[[Dice], bytes]

    def data_set(self, dice: Dice) -> bytes:
        """The bytes behind File Meta, or what is left of them."""
        part10 = self.choose(dice)
        at = 144 + int.from_bytes(part10[140:144], "little") % 1024
        return part10[at:]


def grammar_of(objects: Objects) -> Callable[[Dice], bytes]:
    """Streams of one connection."""

    def made(dice: Dice) -> bytes:
        if dice.chance(12):
            return damaged(dice, dice.octets(200), 3)
        pdus = [_associate(dice), *_messages(dice, objects), *_ending(dice)]
        pdus = _disorder(dice, pdus) if dice.chance(4) else pdus
        stream = b"".join(pdus)
        if dice.chance(4):
            stream = damaged(dice, stream, 3)
        return truncated(dice, stream) if dice.chance(5) else stream

    return made


def pdu(kind: int, content: bytes, claimed: int | None = None) -> bytes:
    """Type, length, content."""
    return struct.pack(">BBI", kind & 0xFF, 0, (len(content) if claimed is None else claimed) & 0xFFFFFFFF) + content


def pdv(context_id: int, control: int, fragment: bytes, claimed: int | None = None) -> bytes:
    """A presentation data value. ``control``: bit 0 command, bit 1 last (PS3.8 E.2)."""
    length = len(fragment) + 2 if claimed is None else claimed
    return struct.pack(">IBB", length & 0xFFFFFFFF, context_id & 0xFF, control & 0xFF) + fragment


def item(kind: int, content: bytes, claimed: int | None = None) -> bytes:
    """An item or sub-item of an association PDU."""
    return struct.pack(">BBH", kind & 0xFF, 0, (len(content) if claimed is None else claimed) & 0xFFFF) + content


def context(number: int, abstract: bytes, syntaxes: list[bytes]) -> bytes:
    """A presentation context item."""
    inside = item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes)
    return item(0x20, bytes((number & 0xFF, 0, 0, 0)) + inside)


def associate(contexts: list[bytes], user: bytes | None = None, calling: bytes = b"FUZZER") -> bytes:
    """A-ASSOCIATE-RQ."""
    titles = b"ANY-SCP".ljust(16) + calling.ljust(16)[:16]
    information = item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4")) if user is None else user
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + item(0x10, APPLICATION_CONTEXT)
    return pdu(ASSOCIATE_RQ, body + b"".join(contexts) + information)


def _associate(dice: Dice) -> bytes:
    contexts = [context(1, CT_IMAGE, [SYNTAXES[0]]), context(3, VERIFICATION, [SYNTAXES[1]])]
    if dice.chance(2):
        return associate(contexts)
    count = dice.pick((0, 1, 5, MOST_CONTEXTS, MOST_CONTEXTS * 2))
    contexts += [_context(dice, 2 * number + 5) for number in range(count)]
    made = associate(contexts, _user(dice), dice.octets(20))
    return made[:6] + damaged(dice, made[6:], 3) if dice.chance(3) else made


def _context(dice: Dice, number: int) -> bytes:
    syntaxes = [dice.pick(SYNTAXES) for _ in range(dice.whole(0, 3))]
    return context(dice.whole(0, 255) if dice.chance(4) else number, dice.pick(UIDS), syntaxes)


def _user(dice: Dice) -> bytes:
    """User information: sub-items that services negotiate (PS3.7 D.3.3), with lengths that may lie."""
    some = (
        item(0x51, struct.pack(">I", dice.pick(EDGES))),
        item(0x52, dice.pick(UIDS)),
        item(0x53, struct.pack(">HH", dice.whole(0, 65535), dice.whole(0, 65535))),
        item(0x54, _led(dice.pick(UIDS)) + dice.octets(4)),
        item(0x55, dice.octets(20)),
        item(0x56, _led(dice.pick(UIDS)) + dice.octets(16)),
        item(0x57, _led(dice.pick(UIDS)) + _led(dice.octets(20))),
        item(0x58, bytes((dice.whole(0, 6), dice.whole(0, 2))) + _led(dice.octets(40)) + _led(dice.octets(20))),
        item(dice.whole(0, 255), dice.octets(30), dice.pick((None, *EDGES))),
    )
    return item(0x50, b"".join(one for one in some if not dice.chance(3)), dice.pick((None, None, None, *EDGES[:4])))


def _led(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def _messages(dice: Dice, objects: Objects) -> list[bytes]:
    return [one for _ in range(dice.whole(0, 3)) for one in _message(dice, objects)]


def _message(dice: Dice, objects: Objects) -> list[bytes]:
    """One message as P-DATA PDUs: sound, in many fragments, interleaved, endless, or of nothing at all."""
    command = commands(dice)
    data = objects.data_set(dice) if dice.chance(2) else b""
    number = dice.pick((1, 1, 1, 1, 3, 0, 2, 255))
    step = dice.pick((FRAGMENT_BYTES, FRAGMENT_BYTES, 1024, 37))
    values = [pdv(number, 3 if last else 1, piece) for last, piece in _cut(command, step)]
    values += [pdv(number, 2 if last else 0, piece) for last, piece in _cut(data, step)[:MOST_FLOOD]]
    if dice.chance(4):
        values = _wrong_values(dice, values)
    return [pdu(P_DATA, b"".join(values))] if dice.chance(3) else [pdu(P_DATA, value) for value in values]


def _wrong_values(dice: Dice, values: list[bytes]) -> list[bytes]:
    at = dice.whole(0, len(values))
    wrong = (
        [pdv(1, dice.whole(0, 255), dice.octets(40))],
        [pdv(dice.whole(0, 255), dice.whole(0, 3), dice.octets(40), dice.pick(EDGES))],
        [b""],
        [pdv(1, dice.whole(0, 1), b"")] * dice.pick((2, 30, MOST_FLOOD)),
        [struct.pack(">I", dice.pick((0, 1, 2)))],
        values[::-1],
    )
    return values[:at] + dice.pick(wrong) + values[at + dice.whole(0, 1) :]


def _ending(dice: Dice) -> list[bytes]:
    endings: tuple[list[bytes], ...] = (
        [pdu(RELEASE_RQ, bytes(4))],
        [],
        [pdu(ABORT, bytes(4))],
        [pdu(RELEASE_RQ, bytes(4))] * 2,
        [pdu(dice.whole(0, 255), dice.octets(40), dice.pick((None, *EDGES)))],
        [associate([])],
        [pdu(ASSOCIATE_AC, dice.octets(120)), pdu(RELEASE_RP, bytes(4))],
        [pdu(P_DATA, b"")] * dice.pick((1, 50, MOST_FLOOD)),
    )
    return dice.pick(endings)


def _disorder(dice: Dice, pdus: list[bytes]) -> list[bytes]:
    at = dice.whole(0, len(pdus) - 1)
    return dice.pick((pdus[1:], pdus[::-1], pdus[:at] + pdus[at + 1 :], pdus[: at + 1] * 2, pdus + pdus))


def _cut(data: bytes, step: int) -> list[tuple[bool, bytes]]:
    return _marked([data[at : at + step] for at in range(0, len(data), step)])


def _marked(pieces: list[bytes]) -> list[tuple[bool, bytes]]:
    """Each piece with whether it is the last."""
    return [(at == len(pieces) - 1, piece) for at, piece in enumerate(pieces)]
