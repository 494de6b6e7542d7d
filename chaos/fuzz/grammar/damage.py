"""Damage that knows nothing of structure: bits, bytes, lengths, pieces out of place."""

from collections.abc import Callable

from chaos.fuzz.dice import Dice

# Where sign, carry and allocation go wrong, in one, two and four bytes.
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
MOST_REPEATS = 64


def damaged(dice: Dice, data: bytes, most: int = 4) -> bytes:
    """One to ``most`` small damages, one after the other."""
    for _ in range(dice.whole(1, most)):
        data = dice.pick(_DAMAGES)(dice, data)
    return data


def truncated(dice: Dice, data: bytes) -> bytes:
    """Cut anywhere; as often as not near the end, where parsers look ahead."""
    if dice.chance(2):
        return data[: max(0, len(data) - dice.whole(1, 16))]
    return data[: dice.whole(0, len(data))]


def _flipped(dice: Dice, data: bytes) -> bytes:
    at = dice.whole(0, max(0, len(data) - 1))
    return data[:at] + bytes(byte ^ (1 << dice.whole(0, 7)) for byte in data[at : at + 1]) + data[at + 1 :]


def _overwritten(dice: Dice, data: bytes) -> bytes:
    at, new = dice.whole(0, len(data)), dice.octets(8)
    return data[:at] + new + data[at + len(new) :]


def _edge(dice: Dice, data: bytes) -> bytes:
    size, order = dice.pick((1, 2, 4)), dice.pick(("little", "big"))
    at = dice.whole(0, len(data))
    edge = (dice.pick(EDGES) % (1 << 8 * size)).to_bytes(size, "little" if order == "little" else "big")
    return data[:at] + edge + data[at + size :]


def _inserted(dice: Dice, data: bytes) -> bytes:
    at = dice.whole(0, len(data))
    return data[:at] + dice.octets(16) + data[at:]


def _removed(dice: Dice, data: bytes) -> bytes:
    at = dice.whole(0, len(data))
    return data[:at] + data[at + dice.whole(1, 16) :]


def _repeated(dice: Dice, data: bytes) -> bytes:
    at = dice.whole(0, len(data))
    piece = data[at : at + dice.whole(1, 32)]
    return data[:at] + piece * dice.whole(2, MOST_REPEATS) + data[at:]


_DAMAGES: tuple[Callable[[Dice, bytes], bytes], ...] = (
    _flipped,
    _overwritten,
    _edge,
    _inserted,
    _removed,
    _repeated,
    truncated,
)
