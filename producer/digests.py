"""What makes two objects the same image: their pixels and geometry, whatever a PACS coerced around them."""

from array import array
from collections.abc import Iterable
from hashlib import sha256
from itertools import chain

from pydicom.dataset import Dataset

from producer.header import BIG_ENDIAN, NATIVE, Header, pixel_values, read_header, values

BITS_ALLOCATED = 0x00280100
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


def pixel_digest(header: Header, part10: bytes) -> tuple[str, bool]:
    """SHA-256 (hex) of pixels and geometry, and whether the pixel data is whole.

    Native pixels give the same digest in every native transfer syntax. Compressed ones are hashed as encoded, below
    their transfer syntax. An object without pixels is hashed whole, less what archives coerce.
    """
    if header.pixels is None:
        return _without_pixels(part10), True
    views, whole = pixel_values(header)
    geometry = Dataset({tag: header.elements.get_item(tag) for tag in GEOMETRY if tag in header.elements})
    led_by = (*values(geometry, header.little_endian), _encoding(header).encode())
    return _hash(chain(led_by, _little_endian(header, views))), whole


def _without_pixels(part10: bytes) -> str:
    header = read_header(part10)
    leave_out = _COERCED | {tag for tag in map(int, header.elements.keys()) if tag >> 16 == _PATIENT_GROUP}
    return _hash(values(header.elements, header.little_endian, leave_out))


def _encoding(header: Header) -> str:
    syntax = header.meta.transfer_syntax_uid
    return "native" if syntax in NATIVE else syntax


def _little_endian(header: Header, views: list[memoryview]) -> list[memoryview]:
    """Big endian pixels turned round (PS3.5 7.3); everything else as it is."""
    kind = _ARRAY_TYPE.get(header.short(BITS_ALLOCATED))
    if header.meta.transfer_syntax_uid not in BIG_ENDIAN or kind is None:
        return views
    turned = [array(kind, bytes(view[: len(view) // array(kind).itemsize * array(kind).itemsize])) for view in views]
    for words in turned:
        words.byteswap()
    return [memoryview(words).cast("B") for words in turned]


def _hash(parts: Iterable[bytes | memoryview]) -> str:
    """Each part is led by its length, so that no two lists of parts hash alike."""
    machine = sha256()
    for part in parts:
        machine.update(len(part).to_bytes(8, "big"))
        machine.update(part)
    return machine.hexdigest()
