"""DICOM objects for the tests, made here: small, whole, with patient data that must never leak; and hostile ones."""

import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, generate_uid

from producer.header import file_meta
from producer.leftovers_out import LOCK

SECRETS = ("Testmann^Erika", "PID-4711", "19610203", "ACC-99", "Kopf nach Sturz")


def ct(pixels: bytes = b"\1\0" * 256, **changes: Any) -> Dataset:
    """A CT slice of 16 × 16 pixels in its own study, unless told otherwise."""
    image = Dataset()
    image.SOPClassUID = CTImageStorage
    image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID = (generate_uid() for _ in range(3))
    image.Modality = "CT"
    image.PatientName, image.PatientID, image.PatientBirthDate = SECRETS[:3]
    image.PatientSex = "F"
    image.AccessionNumber, image.StudyDescription = SECRETS[3:]
    image.Rows = image.Columns = 16
    image.PixelSpacing, image.SliceThickness = [0.5, 0.5], 5
    image.ImagePositionPatient, image.ImageOrientationPatient = [0, 0, 10], [1, 0, 0, 0, 1, 0]
    image.RescaleSlope, image.RescaleIntercept = 1, -1024
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.PixelData = pixels
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def part10(image: Dataset, transfer_syntax: str = ExplicitVRLittleEndian, **meta: Any) -> bytes:
    """Its file, written by pydicom."""
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = transfer_syntax
    for name, value in meta.items():
        setattr(image.file_meta, name, value)
    if "PixelData" in image:
        image["PixelData"].VR = "OW"
    stream = BytesIO()
    dcmwrite(stream, image, enforce_file_format=True)
    return stream.getvalue()


@cache
def bomb(inflated_bytes: int = 2 * 1024**3) -> bytes:
    """A deflated object of a thousandth of what it inflates to: zeros behind an honest beginning.

    After a full flush the same zeros are the same bytes, so the block is made once and repeated.
    """
    payload = part10(ct(), DeflatedExplicitVRLittleEndian)
    start = file_meta(payload).data_set_at
    machine, zeros = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS), bytes(1024**2)
    honest, block = (
        machine.compress(piece) + machine.flush(zlib.Z_FULL_FLUSH)
        for piece in (zlib.decompress(payload[start:], -zlib.MAX_WBITS), zeros)
    )
    return payload[:start] + honest + block * (inflated_bytes // len(zeros)) + machine.flush()


# A DOS header that says where the PE header is, and the head of an ELF file for x86-64: as far as 128 bytes go.
PE_AT = 0x200
PE_HEAD = b"MZ\x90\0\3\0\0\0\4\0\0\0\xff\xff\0\0\xb8".ljust(60, b"\0") + PE_AT.to_bytes(4, "little") + b"\x90" * 64
ELF_HEAD = (b"\x7fELF\2\1\1".ljust(16, b"\0") + b"\2\0\x3e\0\1\0\0\0").ljust(128, b"\0")
TIFF_HEAD = b"II*\0\x08\0\0\0".ljust(128, b"\0")
SCRIPT_HEAD = b"#!/bin/sh\nexit 42\n".ljust(128, b"\n")


def beginning_with(preamble: bytes, payload: bytes) -> bytes:
    """The same object behind another preamble."""
    return preamble + payload[len(preamble) :]


def files_below(folder: Path) -> list[Path]:
    """What lies in a payload store, less its lock."""
    return [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
