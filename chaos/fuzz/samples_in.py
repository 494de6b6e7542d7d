"""Sound files to begin from: pydicom's own small ones, and head CT slices that go the whole way to the model."""

from collections.abc import Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from chaos.fuzz.grammar.elements import EXPLICIT_LITTLE, Encoding, Unreadable, read
from chaos.fuzz.grammar.part10 import DEFLATED, TRANSFER_SYNTAX, Sample

SMALL_BYTES = 12_000  # pydicom's files below that: enough kinds, and a fuzzer's time goes into structure, not pixels
MATRIX = 128  # the smallest that the model is served with (worker/scoring/routing.py)
SPACING_MM = 1.2  # its largest pixel: the field of view is a head's
INTERCEPT_HU = -1024
FRAMES = 3
_HEADER_BYTES = 132  # preamble and prefix (PS3.10 7.1)
_ENCODINGS = {
    b"1.2.840.10008.1.2": Encoding(implicit=True),
    b"1.2.840.10008.1.2.2": Encoding(big_endian=True),
}


@lru_cache
def all_samples() -> tuple[Sample, ...]:
    """Head CT in every encoding we can write, twice as likely as any of pydicom's files, which follow."""
    return (*heads(), *heads(), *_files())


@lru_cache
def heads() -> tuple[Sample, ...]:
    """One slice in several transfer syntaxes, and an enhanced multi-frame object."""
    plain = [head_ct(syntax) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)]
    packed = [compressed_ct(syntax) for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless)]
    deflated = head_ct(DeflatedExplicitVRLittleEndian)
    named = zip(
        ["explicit", "implicit", "big", "deflated", "rle", "jpeg-ls", "jpeg-2000", "enhanced"],
        _ordered(plain, deflated, packed),
        strict=True,
    )
    return tuple(sample_of(f"head-{name}", part10) for name, part10 in named)


def _ordered(plain: list[bytes], deflated: bytes, packed: list[bytes]) -> list[bytes]:
    return [*plain, deflated, *packed, enhanced_ct()]


def head_ct(
    transfer_syntax: str = ExplicitVRLittleEndian, uids: tuple[str, str, str] = ("1.2.3", "1.2.3.1", "1.2.3.1.1")
) -> bytes:
    """A slice of a ring of bone around brain: in the scope of the served model. ``uids``: study, series, instance."""
    image = _head(uids)
    pixels = _ring() - INTERCEPT_HU
    image.PixelData = pixels.astype(">u2" if transfer_syntax == ExplicitVRBigEndian else "<u2").tobytes()
    image["PixelData"].VR = "OW"
    return _written(image, transfer_syntax)


def enhanced_ct() -> bytes:
    """Three frames with shared and per-frame functional groups (PS3.3 A.38)."""
    image = _head(("1.2.4", "1.2.4.1", "1.2.4.1.1"))
    image.SOPClassUID, image.NumberOfFrames = EnhancedCTImageStorage, FRAMES
    for name in ("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"):
        delattr(image, name)
    image.SharedFunctionalGroupsSequence = [_shared()]
    image.PerFrameFunctionalGroupsSequence = [_placed(number) for number in range(FRAMES)]
    image.PixelData = (_ring() - INTERCEPT_HU).astype("<u2").tobytes() * FRAMES
    image["PixelData"].VR = "OW"
    return _written(image, ExplicitVRLittleEndian)


def sample_of(name: str, part10: bytes) -> Sample:
    """The file, taken apart where that can be done."""
    try:
        return _apart(name, part10)
    except Unreadable:
        return Sample(name, part10)


def _apart(name: str, part10: bytes) -> Sample:
    if part10[128:132] != b"DICM":
        raise Unreadable
    at = _HEADER_BYTES + _meta_bytes(part10)
    meta = read(part10[_HEADER_BYTES:at], EXPLICIT_LITTLE)
    syntax = next((element.value.rstrip(b"\0") for element in meta if element.tag == TRANSFER_SYNTAX), b"")
    encoding = _ENCODINGS.get(syntax, EXPLICIT_LITTLE)
    body = _inflated(part10[at:]) if syntax == DEFLATED else part10[at:]
    return Sample(name, part10, meta, read(body, encoding), encoding)


def _meta_bytes(part10: bytes) -> int:
    """Length of the File Meta group by its first element (PS3.10 7.1: always Explicit VR Little Endian)."""
    if part10[132:140] != b"\x02\0\0\0UL\x04\0":
        raise Unreadable
    return 12 + int.from_bytes(part10[140:144], "little")


def _inflated(body: bytes) -> bytes:
    import zlib  # noqa: PLC0415 - of one sample

    return zlib.decompressobj(-zlib.MAX_WBITS).decompress(body)


def _files() -> Iterator[Sample]:
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    for path in sorted(folder.glob("*.dcm")):
        if path.stat().st_size <= SMALL_BYTES:
            yield sample_of(path.name, path.read_bytes())


def _head(uids: tuple[str, str, str]) -> Dataset:
    image = Dataset()
    image.SOPClassUID, image.Modality, image.BodyPartExamined = CTImageStorage, "CT", "HEAD"
    image.StudyInstanceUID, image.SeriesInstanceUID, image.SOPInstanceUID = uids
    image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.PatientName, image.PatientID, image.StudyDescription = "Fuzz^Head", "F1", "CT head"
    image.Rows = image.Columns = MATRIX
    image.PixelSpacing, image.SliceThickness = [SPACING_MM, SPACING_MM], 5
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 10], [1, 0, 0, 0, 1, 0]
    image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, INTERCEPT_HU, "HU"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    return image


def _ring() -> Any:
    """HU, (rows, columns): air, a ring of bone, brain."""
    row, column = np.mgrid[:MATRIX, :MATRIX] - MATRIX / 2
    radius = np.hypot(row, column)
    return np.select([radius < 48, radius < 53], [35, 900], -1000)  # noqa: PLR2004 - an adult's head in pixels


def _shared() -> Dataset:
    group, measures, plane, transform = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [SPACING_MM, SPACING_MM], 5
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    transform.RescaleSlope, transform.RescaleIntercept, transform.RescaleType = 1, INTERCEPT_HU, "HU"
    group.PixelMeasuresSequence, group.PlaneOrientationSequence = [measures], [plane]
    group.PixelValueTransformationSequence = [transform]
    return group


def _placed(number: int) -> Dataset:
    group, position = Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, 5 * number]
    group.PlanePositionSequence = [position]
    return group


def compressed_ct(transfer_syntax: str) -> bytes:
    """Part 10 bytes of the head's slice in that syntax."""
    image = pydicom.dcmread(BytesIO(head_ct()))
    image.compress(transfer_syntax, generate_instance_uid=False)
    stream = BytesIO()
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _written(image: Dataset, transfer_syntax: str) -> bytes:
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax
    stream = BytesIO()
    pydicom.dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()
