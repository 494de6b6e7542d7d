"""Part 10 files (PS3.10): sound samples with elements, lengths, nesting, encoding or pixel data made wrong."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.damage import EDGES, damaged, truncated
from chaos.fuzz.grammar.elements import EXPLICIT_LITTLE, UNDEFINED, Element, Encoding, encapsulated, nested, written
from chaos.fuzz.parcel import pack

TRANSFER_SYNTAX = 0x00020010
PIXEL_DATA = 0x7FE00010
STUDY, SOP_INSTANCE, POSITION = 0x0020000D, 0x00080018, 0x00200032
STUDIES = 5000  # among which inputs are spread: a study of thousands of images is not what is tried here
DEFLATED = b"1.2.840.10008.1.2.1.99"
SYNTAXES = (
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2.2",
    DEFLATED,
    *(
        b"1.2.840.10008.1.2.4." + tail
        for tail in b"50 51 57 70 80 81 90 91 92 93 94 95 100 102 107 201 202 203".split()
    ),
    b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.6.1",
    b"1.2.840.113619.5.2",
    b"1.2.3.4.5",
)
VRS = (
    *b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT ZZ".split(),
    *(b"\0\0", b"  ", b"\xff\xff"),
)
PREAMBLES = (
    b"",
    b"MZ\x90\0",
    b"\x7fELF\x02\x01",
    b"#!/bin/sh\n",
    b"PK\x03\x04",
    b"II*\0\x10\0\0\0",
    b"GIF89a",
    b"<?xml",
)

# Numbers that decide how much is allocated or how a slice lies, with the VR they come in.
NUMBERS = {
    0x00280002: b"US",  # SamplesPerPixel
    0x00280006: b"US",  # PlanarConfiguration
    0x00280008: b"IS",  # NumberOfFrames
    0x00280010: b"US",  # Rows
    0x00280011: b"US",  # Columns
    0x00280030: b"DS",  # PixelSpacing
    0x00280100: b"US",  # BitsAllocated
    0x00280101: b"US",  # BitsStored
    0x00280102: b"US",  # HighBit
    0x00280103: b"US",  # PixelRepresentation
    0x00280120: b"US",  # PixelPaddingValue
    0x00280121: b"US",  # PixelPaddingRangeLimit
    0x00281052: b"DS",  # RescaleIntercept
    0x00281053: b"DS",  # RescaleSlope
    0x00180050: b"DS",  # SliceThickness
    0x00200032: b"DS",  # ImagePositionPatient
    0x00200037: b"DS",  # ImageOrientationPatient
}
WORDS = (
    *(
        b"0",
        b"1",
        b"-1",
        b"0.0",
        b"1e308",
        b"-1e308",
        b"1e-320",
        b"1e999",
        b"nan",
        b"inf",
        b"-inf",
        b"",
        b" ",
        b"\\",
        b"x",
    ),
    *(b"9" * 12, b"9" * 400, b"2147483648", b"1\\2", b"0\\0", b"1\\nan", b"1\\0\\0\\0\\1\\0", b"nan\\0\\0\\0\\1\\0"),
    *(b"65536", b"0x10", b"1_000", b"\xb2", b"\0", b"1\\1\\1"),
)
# How many numbers those have that have several, and a place each of them may have: one of them is made extreme.
SEVERAL = {
    0x00280030: (b"1.2", b"1.2"),
    0x00200032: (b"0", b"0", b"10"),
    0x00200037: (b"1", b"0", b"0", b"0", b"1", b"0"),
}
DECIMALS = tuple(tag for tag, vr in NUMBERS.items() if vr in (b"DS", b"IS"))
EXTREMES = (
    *("1e308", "-1e308", "9e307", "1.7976931348623157e308", "1e300", "-1e300", "1e154", "1e39", "65520", "1e15"),
    *("1e-308", "-1e-308", "5e-324", "-5e-324", "1e-39", "-0.0", "2147483648", "-2147483649", "9" * 12),
)
TEXTS = {
    0x00080005: (b"ISO_IR 100", b"ISO_IR 192", b"ISO 2022 IR 87", b"\\ISO 2022 IR 149", b"GB18030", b"bogus", b"\xff"),
    0x00080016: (b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.2.1", b"1." * 40, b"", b"../../x", b"1..2"),
    0x00080018: (b"1.2.3", b"", b"1" * 65, b"1.2\0.3", b"..", b"1.2/../..", b"\xc3\xa9"),
    0x0020000D: (b"1.2.3", b"", b"9" * 64, b"1.2|3", b"\n"),
    0x0020000E: (b"1.2.3", b"", b"1.2.3 "),
    0x00080060: (b"CT", b"MR", b"", b"CT\\MR", b"\xff" * 16),
    0x00080008: (b"ORIGINAL\\PRIMARY\\AXIAL", b"DERIVED\\SECONDARY\\MPR", b"\\\\\\", b"", b"LOCALIZER" * 9),
    0x00180015: (b"HEAD", b"CHEST", b"", b"HEAD\\CHEST"),
    0x00100010: (b"Doe^Jane", b"=" * 40, b"\x1b$B" * 20, b"\x1b" * 300, b"a" * 9000),
    0x00081030: (b"CT head", b"stroke" * 200, b"(" * 200, b"\x00\x01\x02"),
    0x00281054: (b"HU", b"US", b"", b"\xff"),
}
MOST_SLICES = 3  # neighbours that agree, and one more
LARGEST_SINGLE = 3.4028234663852886e38
MOST_DEPTH = 1500  # beyond any interpreter's recursion limit
MOST_FLOOD = 3000  # elements
BOMB_BYTES = (64 * 1024, 1024**2, 16 * 1024**2)  # inflated; each deflates a thousandfold


@dataclass(frozen=True, slots=True)
class Sample:
    """A sound file, taken apart where that could be done; ``raw`` always holds it whole."""

    name: str
    raw: bytes
    meta: tuple[Element, ...] = ()
    body: tuple[Element, ...] = ()
    encoding: Encoding = EXPLICIT_LITTLE

    @property
    def apart(self) -> bool:
        """Whether its elements can be changed one by one."""
        return bool(self.body)


@dataclass(slots=True)
class _Draft:
    meta: list[Element]
    body: list[Element]
    encoding: Encoding
    preamble: bytes = b""
    deflate: bool = False
    tail: bytes = b""


def grammar_of(samples: Sequence[Sample]) -> Callable[[Dice], bytes]:
    """Files that began as one of the samples."""

    def made(dice: Dice) -> bytes:
        sample = dice.pick(samples)
        if not sample.apart or dice.chance(6):
            return damaged(dice, sample.raw, 8)
        return _of(dice, sample)

    return made


def series_of(samples: Sequence[Sample]) -> Callable[[Dice], bytes]:
    """A parcel of neighbouring slices of one series that differ in place, of which some have numbers made extreme."""
    apart = [sample for sample in samples if sample.apart]

    def made(dice: Dice) -> bytes:
        return pack([_slice(dice, dice.pick(apart), nth) for nth in range(dice.whole(1, MOST_SLICES))])

    return made


def _slice(dice: Dice, sample: Sample, nth: int) -> bytes:
    draft = _draft(sample)
    for tag, vr, value in ((SOP_INSTANCE, b"UI", b"1.2.3.1.%d" % nth), (POSITION, b"DS", b"0\\0\\%d" % (5 * nth))):
        _put(draft, Element(tag, vr, value + _padding(vr, value)))
    if dice.chance(2):
        for _ in range(dice.whole(1, 2)):
            _extreme(dice, draft)
    return _file(draft)


def sound_of(sample: Sample) -> bytes:
    """The sample put together again, unchanged."""
    return _file(_draft(sample))


def _of(dice: Dice, sample: Sample) -> bytes:
    draft = _draft(sample)
    if not dice.chance(10):
        study = b"1.2.826.0.77.%d" % dice.whole(0, STUDIES)
        _put(draft, Element(STUDY, b"UI", _even(study)))
    for _ in range(dice.whole(0, 4)):
        dice.pick(_CHANGES)(dice, draft)
    made = _file(draft)
    if dice.chance(5):
        made = damaged(dice, made)
    return truncated(dice, made) if dice.chance(6) else made


def _draft(sample: Sample) -> _Draft:
    syntax = next((element.value.rstrip(b"\0") for element in sample.meta if element.tag == TRANSFER_SYNTAX), b"")
    return _Draft(list(sample.meta), list(sample.body), sample.encoding, deflate=syntax == DEFLATED)


def _file(draft: _Draft) -> bytes:
    body = written(draft.body, draft.encoding)
    if draft.deflate:
        machine = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = machine.compress(body) + machine.flush()
    return draft.preamble.ljust(128, b"\0")[:128] + b"DICM" + written(draft.meta) + body + draft.tail


# Changes


def _at(dice: Dice, elements: Sequence[Element]) -> int:
    return dice.whole(0, max(0, len(elements) - 1))


def _drop(dice: Dice, draft: _Draft) -> None:
    elements = dice.pick((draft.body, draft.body, draft.meta))
    at = _at(dice, elements)
    del elements[at : at + 1]


def _double(dice: Dice, draft: _Draft) -> None:
    at = _at(dice, draft.body)
    draft.body[at:at] = draft.body[at : at + 1] * dice.whole(1, 3)


def _swap(dice: Dice, draft: _Draft) -> None:
    one, other = _at(dice, draft.body), _at(dice, draft.body)
    if draft.body:
        draft.body[one], draft.body[other] = draft.body[other], draft.body[one]


def _change(dice: Dice, draft: _Draft, **fields: object) -> None:
    elements = dice.pick((draft.body, draft.body, draft.body, draft.meta))
    at = _at(dice, elements)
    elements[at : at + 1] = [replace(element, **fields) for element in elements[at : at + 1]]  # type: ignore[arg-type]  # as the caller names them


def _wrong_vr(dice: Dice, draft: _Draft) -> None:
    _change(dice, draft, vr=dice.pick(VRS))


def _wrong_length(dice: Dice, draft: _Draft) -> None:
    _change(dice, draft, length=dice.pick(EDGES))


def _wrong_value(dice: Dice, draft: _Draft) -> None:
    _change(dice, draft, value=dice.octets(64))


def _number(dice: Dice, draft: _Draft) -> None:
    tag = dice.pick(tuple(NUMBERS))
    vr = NUMBERS[tag]
    order = "big" if draft.encoding.big_endian else "little"
    whole = (dice.pick(EDGES) & 0xFFFF).to_bytes(2, "big" if order == "big" else "little")
    value = whole if vr == b"US" else dice.pick(WORDS)
    _put(draft, Element(tag, vr, value + b" " * (len(value) % 2)))


def _extreme(dice: Dice, draft: _Draft) -> None:
    """A number that a double, or its text, can just hold, where others would be sound; as text or as a float."""
    tag = POSITION if dice.chance(3) else dice.pick(DECIMALS)  # the one of them that travels on, in events
    values = list(SEVERAL.get(tag, (b"1",)))
    values[dice.whole(0, len(values) - 1)] = dice.pick(EXTREMES).encode()
    vr = NUMBERS[tag] if not dice.chance(4) else dice.pick((b"FD", b"FL"))
    text = b"\\".join(values)
    value = _floats(vr, values, draft.encoding) if vr in (b"FD", b"FL") else text + _padding(vr, text)
    _put(draft, Element(tag, vr, value))


def _floats(vr: bytes, values: Sequence[bytes], encoding: Encoding) -> bytes:
    numbers = [float(value) for value in values]
    if vr == b"FL":
        numbers = [max(-LARGEST_SINGLE, min(LARGEST_SINGLE, number)) for number in numbers]
    return struct.pack(f"{encoding.order}{len(numbers)}{'d' if vr == b'FD' else 'f'}", *numbers)


def _padding(vr: bytes, value: bytes) -> bytes:
    return (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)


def _text(dice: Dice, draft: _Draft) -> None:
    tag = dice.pick(tuple(TEXTS))
    vr = next((element.vr for element in draft.body if element.tag == tag), b"LO")
    _put(draft, Element(tag, vr, dice.pick(TEXTS[tag])))


def _put(draft: _Draft, element: Element) -> None:
    """In its place, the order of tags kept: parsers stop early where it is broken."""
    draft.body[:] = sorted([e for e in draft.body if e.tag != element.tag] + [element], key=lambda e: e.tag)


def _nest(dice: Dice, draft: _Draft) -> None:
    depth = dice.pick((1, 8, 64, dice.whole(65, MOST_DEPTH)))
    _put(draft, nested(depth, draft.encoding, defined=dice.chance(2)))


def _flood(dice: Dice, draft: _Draft) -> None:
    count = dice.pick((10, 200, MOST_FLOOD))
    draft.body += [Element(0x00990000 + 0x1000 + number, b"LO", b"x ") for number in range(count)]
    draft.body.sort(key=lambda element: element.tag)


def _private(dice: Dice, draft: _Draft) -> None:
    tag = dice.pick((0x00091001, 0x00000010, 0x00020099, 0xFFFEE000, 0xFFFEE00D, 0xFFFFFFFF, 0x00280004, 0x7FE00001))
    draft.body.insert(_at(dice, draft.body), Element(tag, dice.pick(VRS), dice.octets(24)))


def _syntax(dice: Dice, draft: _Draft) -> None:
    """Another transfer syntax is announced; as often as not the data set does not follow."""
    syntax = dice.pick(SYNTAXES)
    draft.meta = [replace(e, value=_even(syntax)) if e.tag == TRANSFER_SYNTAX else e for e in draft.meta]
    if dice.chance(2):
        draft.deflate = syntax == DEFLATED
        draft.encoding = Encoding(implicit=syntax == SYNTAXES[0], big_endian=syntax == SYNTAXES[2])


def _meta_length(dice: Dice, draft: _Draft) -> None:
    value = dice.pick(EDGES).to_bytes(4, "little")
    draft.meta = [replace(e, value=value) if e.tag == 0x00020000 else e for e in draft.meta]  # noqa: PLR2004 - group length


def _preamble(dice: Dice, draft: _Draft) -> None:
    draft.preamble = dice.pick(PREAMBLES) + dice.octets(8)


def _bomb(dice: Dice, draft: _Draft) -> None:
    """A deflated data set that inflates a thousandfold (PS3.5 A.5)."""
    draft.meta = [replace(e, value=_even(DEFLATED)) if e.tag == TRANSFER_SYNTAX else e for e in draft.meta]
    draft.body, draft.deflate, draft.tail = [], False, _bomb_of(dice.pick(BOMB_BYTES), dice.chance(2))


@lru_cache
def _bomb_of(size: int, endless: bool) -> bytes:  # noqa: FBT001 - a cache's key
    """``endless``: the stream has no end, so an inflater that waits for it never knows the size."""
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begun = machine.compress(written([Element(0x00090010, b"OB", b"", size)]) + bytes(size))
    return begun + (b"" if endless else machine.flush())


def _pixels(dice: Dice, draft: _Draft) -> None:
    """Damage where decoders begin to read: the first bytes of the pixel data."""
    for at, element in enumerate(draft.body):
        if element.tag == PIXEL_DATA:
            head, rest = element.value[:96], element.value[96:]
            draft.body[at] = replace(element, value=damaged(dice, head, 3) + rest)


def _fragments(dice: Dice, draft: _Draft) -> None:
    """Pixel data cut into fragments anew, with items and an offset table that may lie."""
    whole = next((element.value for element in draft.body if element.tag == PIXEL_DATA), b"")[:4096]
    step = dice.pick((2, 64, 1024, 4096))
    fragments = [whole[at : at + step] for at in range(0, len(whole), step)][:200]
    claims = [dice.pick((None, *EDGES)) for _ in fragments] if dice.chance(2) else []
    table = b"".join(dice.pick(EDGES).to_bytes(4, "little") for _ in range(dice.whole(0, 6)))
    draft.body = [e for e in draft.body if e.tag != PIXEL_DATA]
    draft.body.append(Element(PIXEL_DATA, b"OB", encapsulated(fragments, table, claims), UNDEFINED))


def _tail(dice: Dice, draft: _Draft) -> None:
    draft.tail = dice.octets(64)


def _even(uid: bytes) -> bytes:
    return uid + b"\0" * (len(uid) % 2)


_CHANGES: tuple[Callable[[Dice, _Draft], None], ...] = (
    _number,
    _number,
    _extreme,
    _text,
    _drop,
    _double,
    _swap,
    _wrong_vr,
    _wrong_length,
    _wrong_value,
    _nest,
    _flood,
    _private,
    _syntax,
    _meta_length,
    _preamble,
    _bomb,
    _pixels,
    _fragments,
    _tail,
)
