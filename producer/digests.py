"""What makes two objects the same image: their pixels and geometry, whatever a PACS coerced around them."""

from array import array
from hashlib import sha256

from producer.caps import DEFAULT, Caps, Count
from producer.elements import Element, Level, is_sequence, vr_of
from producer.header import BIG_ENDIAN, NATIVE, Header, PixelValues
from producer.walking import Listener, past, walk

BITS_ALLOCATED = 0x00280100
PIECE_BYTES = 1024 * 1024  # of big endian pixels, turned round at a time
_SHORTS = frozenset({"US", "SS", "US or SS"})
_ARRAY_TYPE = {16: "H", 32: "I", 64: "Q"}

# Top-level elements without which the same bytes would be another picture (PS3.3 C.7.6.2, C.7.6.3, C.11.1).
GEOMETRY = (
    0x00180050,  # SliceThickness
    0x00200032,  # ImagePositionPatient
    0x00200037,  # ImageOrientationPatient
    0x00280002,  # SamplesPerPixel
    0x00280004,  # PhotometricInterpretation
    0x00280006,  # PlanarConfiguration
    0x00280008,  # NumberOfFrames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280030,  # PixelSpacing
    BITS_ALLOCATED,
    0x00280101,  # BitsStored
    0x00280102,  # HighBit
    0x00280103,  # PixelRepresentation
    0x00280120,  # PixelPaddingValue
    0x00281052,  # RescaleIntercept
    0x00281053,  # RescaleSlope
    0x52009229,  # SharedFunctionalGroupsSequence: the same for enhanced objects
    0x52009230,  # PerFrameFunctionalGroupsSequence
)

# What archives coerce (PS3.4 B.4.1.4, IHE RAD TF-2 4.5 and PIR): patient module, order and its traces.
_COERCED = frozenset(
    {
        0x00080005,  # SpecificCharacterSet
        0x00080050,  # AccessionNumber
        0x00080080,  # InstitutionName
        0x00080090,  # ReferringPhysicianName
        0x00081030,  # StudyDescription
        0x00200010,  # StudyID
        0x00400275,  # RequestAttributesSequence
        0x04000561,  # OriginalAttributesSequence
        0x00081070,  # OperatorsName
        0x00080015,  # InstanceCoercionDateTime
    }
)
_PATIENT_GROUP = 0x0010


def pixel_digest(header: Header, caps: Caps = DEFAULT) -> tuple[str, bool]:
    """SHA-256 (hex) of pixels and geometry, and whether the pixel data is whole.

    Native pixels give the same digest in every native transfer syntax. Compressed ones are hashed as encoded, below
    their transfer syntax. An object without pixels is hashed whole, less what archives coerce.
    """
    if header.pixels is None:
        return _without_pixels(header, caps), True
    machine = _Hash()
    geometry = {tag: header.elements[tag] for tag in GEOMETRY if tag in header.elements}
    machine.elements(header.level, geometry, caps)
    machine.add(_encoding(header).encode())
    pixels = PixelValues(header)
    for view in pixels:
        machine.add_pixels(view, _turned(header))
    return machine.hexdigest(), pixels.whole


def _without_pixels(header: Header, caps: Caps) -> str:
    found = walk(header.level, header.start, Count(caps), lambda _: False, frozenset()).elements
    machine = _Hash(_COERCED | {tag for tag in found if tag >> 16 == _PATIENT_GROUP})
    machine.elements(header.level, found, caps)
    return machine.hexdigest()


def _encoding(header: Header) -> str:
    syntax = header.meta.transfer_syntax_uid
    return "native" if syntax in NATIVE else syntax


def _turned(header: Header) -> str:
    """The array type of pixels that have to be turned round to be little endian (PS3.5 7.3); empty for the others."""
    big = header.meta.transfer_syntax_uid in BIG_ENDIAN
    return _ARRAY_TYPE.get(header.short(BITS_ALLOCATED), "") if big else ""


class _Hash(Listener):
    """Each part is led by its length, so that no two lists of parts hash alike.

    Tags and values, depth first, are the same whatever VR encoding, sequence lengths or padding they came in.
    """

    def __init__(self, leave_out: frozenset[int] = frozenset()) -> None:
        self._machine = sha256()
        self._leave_out = leave_out
        self._left_out = 0  # sequences that are open and whose content is not wanted

    def hexdigest(self) -> str:
        """Of everything added."""
        return self._machine.hexdigest()

    def add(self, part: bytes | memoryview) -> None:
        """One part."""
        if not self._left_out:
            self._machine.update(len(part).to_bytes(8, "big"))
            self._machine.update(part)

    def add_pixels(self, view: memoryview, kind: str) -> None:
        """One part; words of array type ``kind`` are turned round, a piece at a time, and half a word is left out."""
        if not kind:
            self.add(view)
            return
        word = array(kind).itemsize
        whole = len(view) // word * word
        self._machine.update(whole.to_bytes(8, "big"))
        for at in range(0, whole, PIECE_BYTES):
            words = array(kind, bytes(view[at : min(at + PIECE_BYTES, whole)]))
            words.byteswap()
            self._machine.update(memoryview(words).cast("B"))

    def elements(self, level: Level, found: dict[int, Element], caps: Caps) -> None:
        """Top-level elements by tag, the sequences among them followed."""
        for tag in sorted(found):
            if is_sequence(level, found[tag]):
                self.sequence(found[tag])
                past(level, found[tag], Count(caps), self)
            else:
                self.value(level, found[tag])

    def sequence(self, element: Element) -> None:
        """A sequence begins."""
        if self._left_out or not self._wanted(element.tag):
            self._left_out += 1
        self.add(element.tag.to_bytes(4, "big"))

    def sequence_end(self) -> None:
        """It ends."""
        self._left_out -= self._left_out > 0

    def item(self) -> None:
        """An item begins."""
        self.add(b"(")

    def item_end(self) -> None:
        """It ends."""
        self.add(b")")

    def value(self, level: Level, element: Element) -> None:
        """Its tag and its value."""
        if self._wanted(element.tag) and not self._left_out:
            self.add(element.tag.to_bytes(4, "big"))
            self.add(_canonical(level, element))

    def broken(self, value: memoryview) -> None:
        """What could not be followed is hashed as it is."""
        self.add(value)

    def _wanted(self, tag: int) -> bool:
        return tag not in self._leave_out and tag & 0xFFFF != 0  # group lengths follow the encoding (PS3.5 7.2)


def _canonical(level: Level, element: Element) -> bytes | memoryview:
    """0.5, 0.50 and 5e-1 are one number; text loses its padding; everything else stays as it came."""
    vr, raw = vr_of(element), level.body[element.at : element.end]
    if vr in ("DS", "IS"):
        return b"\\".join(_number(part) for part in raw.split(b"\\"))
    if vr not in _SHORTS:
        return raw.rstrip(b" \0")
    if level.order.little_endian:
        return raw
    return b"".join(raw[i : i + 2][::-1] for i in range(0, len(raw), 2))


def _number(part: bytes) -> bytes:
    try:
        return repr(float(part.strip(b" \0"))).encode()
    except ValueError:
        return part.strip(b" \0")
