"""Tiny head CTs as real DICOM whose truth is known: what the software scanners of the harness send. Pure.

A head is an ellipse of brain in a shell of skull, at the matrix and spacing that scoring serves. A positive study has a
bright block on neighbouring slices, which the stand-in model calls positive (chaos/standin); nothing else in a head has
that density. Every byte follows from the load, the seed and the name of the run; no two runs share a UID.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from random import Random

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
    generate_uid,
)

from chaos.scenario import Load

MATRIX, LARGE_MATRIX = 128, 256  # the smallest that scoring serves; RLE makes it 10 kB, natively stored 131 kB
FIELD_OF_VIEW_MM = 150.0  # an adult's skull with a margin of air; 1.17 and 0.59 mm a pixel
SLICE_MM = 5.0
LESION_SLICES = 3  # neighbours: one more than must agree, so that one of them may be the study's last image
LESION_MM = 23.0  # a side: 5.3 cm², well above the 3 cm² that the stand-in model asks for

# Half axes (row, column) from the middle of the image.
SCALP_MM, SKULL_MM, BRAIN_MM = (70.0, 58.0), (65.0, 53.0), (60.0, 48.0)
AIR_HU, SCALP_HU, SKULL_HU, BRAIN_HU, LESION_HU = -1000, 20, 900, 35, 70
BRAIN_NOISE_HU, LESION_NOISE_HU = 8, 4  # at most that far to either side: brain never reaches the lesion's 60 to 80 HU
INTERCEPT_HU = -1024

# SOC and SIZ (ISO 15444-1 A.5.1): one tile of one signed component of 16 bits.
_START_OF_CODESTREAM = b"".join(
    (
        bytes.fromhex("ff4f ff51 0029 0000"),
        *(size.to_bytes(4, "big") for size in (MATRIX, MATRIX, 0, 0, MATRIX, MATRIX, 0, 0)),
        bytes.fromhex("0001 8f 01 01"),
    )
)
POISON_BYTES = 2000
FAR_MM = ("0", "0", "1e308")  # a decimal string as it may be (PS3.5 6.2), and no place

Plane = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Picture:
    """One image to send. ``digest``: SHA-256 of its data set, as the worklist tells it; ``nth``: from the feet, from 0.

    ``lesion``: the model is to find it positive. ``readable``: a decoder can open it.
    """

    study_instance_uid: str
    sop_instance_uid: str
    digest: str
    nth: int
    lesion: bool
    readable: bool
    part10: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Head:
    """One study of one series, feet first; after the slices comes what is wrong with it on purpose."""

    study_instance_uid: str
    stat: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one study is to be."""

    name: str
    slices: int
    positive: bool
    stat: bool
    poison: bool
    other_bytes: bool
    far: bool


def heads(load: Load, seed: int, run: str) -> tuple[Head, ...]:
    """The load's studies. ``run`` names them: the same name and seed give the same bytes."""
    dice = Random(f"{seed} {run}")
    return tuple(_head(wanted, load.large, dice) for wanted in _wanted(load, run, dice))


def _wanted(load: Load, run: str, dice: Random) -> list[_Wanted]:
    """Shares are kept as counts: a load of ten studies with 40 % positive has four, whatever the dice say."""
    numbers = range(load.studies)
    positive = set(dice.sample(numbers, round(load.positive * load.studies)))
    stat = set(dice.sample(numbers, round(load.stat * load.studies)))
    poison = set(dice.sample(numbers, min(load.poison, load.studies)))
    other = set(dice.sample(numbers, min(load.other_bytes, load.studies)))
    far = set(dice.sample(numbers, min(load.far, load.studies)))
    odd = (poison, other, far)
    return [
        _Wanted(
            f"{run}.{nth}", dice.randint(*load.images), nth in positive, nth in stat, *(nth in which for which in odd)
        )
        for nth in numbers
    ]


def _head(wanted: _Wanted, large: float, dice: Random) -> Head:
    uid = _uid(wanted.name, "study")
    first = dice.randint(0, max(0, wanted.slices - LESION_SLICES))
    sick = range(first, first + LESION_SLICES) if wanted.positive else range(0)
    place_mm = (dice.uniform(-25.0, 25.0), dice.uniform(-15.0, 15.0))
    pictures = []
    for nth in range(wanted.slices):
        matrix = LARGE_MATRIX if dice.random() < large else MATRIX
        hu = _slice_hu(matrix, place_mm if nth in sick else None, dice)
        pictures.append(_picture(uid, wanted.name, nth, hu, sop_name=f"image {nth}", lesion=nth in sick))
    if wanted.other_bytes:
        pictures.append(_with_other_pixels(uid, wanted, sick, place_mm, dice))
    if wanted.poison:
        pictures.append(_poison(uid, wanted.name, wanted.slices, dice))
    if wanted.far:
        pictures.append(_far(uid, wanted.name, wanted.slices, dice))
    return Head(uid, wanted.stat, tuple(pictures))


def _with_other_pixels(uid: str, wanted: _Wanted, sick: range, place_mm: tuple[float, float], dice: Random) -> Picture:
    """The SOP Instance UID of a slice, and what is to be seen there, in other noise."""
    nth = dice.randrange(wanted.slices)
    hu = _slice_hu(MATRIX, place_mm if nth in sick else None, dice)
    return _picture(uid, wanted.name, nth, hu, sop_name=f"image {nth}", lesion=nth in sick)


def _far(uid: str, name: str, nth: int, dice: Random) -> Picture:
    """A sound slice, but for where it says it lies: its pixels are good, and it has no place in a head."""
    hu = _slice_hu(MATRIX, None, dice)
    return _picture(uid, name, nth, hu, sop_name="far", lesion=False, position_mm=FAR_MM)


def _slice_hu(matrix: int, lesion_mm: tuple[float, float] | None, dice: Random) -> Plane:
    """(matrix, matrix) HU. ``lesion_mm``: (row, column) of the lesion's middle from the image's."""
    rng = np.random.default_rng(dice.getrandbits(64))
    rows_mm, columns_mm = _grid_mm(matrix)
    hu = np.full((matrix, matrix), AIR_HU, np.int16)
    for half_mm, value in ((SCALP_MM, SCALP_HU), (SKULL_MM, SKULL_HU), (BRAIN_MM, BRAIN_HU)):
        hu[_ellipse(rows_mm, columns_mm, half_mm)] = value
    brain = hu == BRAIN_HU
    hu[brain] += rng.integers(-BRAIN_NOISE_HU, BRAIN_NOISE_HU, int(brain.sum()), np.int16, endpoint=True)
    if lesion_mm is not None:
        row_mm, column_mm = lesion_mm
        block = (abs(rows_mm - row_mm) <= LESION_MM / 2) & (abs(columns_mm - column_mm) <= LESION_MM / 2)
        noise = rng.integers(-LESION_NOISE_HU, LESION_NOISE_HU, int(block.sum()), np.int16, endpoint=True)
        hu[block] = LESION_HU + noise
    return hu


def _grid_mm(matrix: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column positions of pixel centres from the image's middle."""
    along = (np.arange(matrix) - (matrix - 1) / 2) * (FIELD_OF_VIEW_MM / matrix)
    return along[:, None], along[None, :]


def _ellipse(
    rows_mm: NDArray[np.float64], columns_mm: NDArray[np.float64], half_mm: tuple[float, float]
) -> NDArray[np.bool_]:
    return (rows_mm / half_mm[0]) ** 2 + (columns_mm / half_mm[1]) ** 2 <= 1.0


def _picture(
    uid: str, name: str, nth: int, hu: Plane, *, sop_name: str, lesion: bool, position_mm: Sequence[str] = ()
) -> Picture:
    """Large images as they are, small ones run-length encoded: small enough to travel in the record."""
    stored = (hu - INTERCEPT_HU).astype("<i2").tobytes()
    matrix = hu.shape[0]
    image = _image(uid, name, nth, matrix, sop_name)
    if position_mm:
        image.ImagePositionPatient = list(position_mm)
    if matrix == MATRIX:
        _compress(image, RLELossless, _run_lengths(stored, matrix))
    else:
        image.PixelData = stored
    return _written(image, nth, lesion=lesion, readable=True)


def _run_lengths(stored: bytes, matrix: int) -> bytes:
    described = {
        "rows": matrix,
        "columns": matrix,
        "samples_per_pixel": 1,
        "photometric_interpretation": "MONOCHROME2",
        "bits_allocated": 16,
        "bits_stored": 16,
        "pixel_representation": 1,
        "number_of_frames": 1,
    }
    return bytes(RLELosslessEncoder.encode(stored, encoding_plugin="pylibjpeg", **described))


def _poison(uid: str, name: str, nth: int, dice: Random) -> Picture:
    """A JPEG 2000 image: its codestream announces the right size, so it does reach a decoder, and then is rubbish."""
    image = _image(uid, name, nth, MATRIX, "poison")
    _compress(image, JPEG2000Lossless, _START_OF_CODESTREAM + dice.randbytes(POISON_BYTES))
    return _written(image, nth, lesion=False, readable=False)


def _compress(image: FileDataset, syntax: UID, frame: bytes) -> None:
    image.file_meta.TransferSyntaxUID = syntax
    image.PixelData = encapsulate([frame])
    image["PixelData"].VR = "OB"


def _image(uid: str, name: str, nth: int, matrix: int, sop_name: str) -> FileDataset:
    """The data set without its pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(name, sop_name)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.update(_common(uid, name))
    pitch_mm = FIELD_OF_VIEW_MM / matrix
    corner = f"{-(matrix - 1) / 2 * pitch_mm:.4f}"
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.InstanceNumber = nth + 1
    image.ImagePositionPatient = [corner, corner, f"{nth * SLICE_MM:g}"]
    image.PixelSpacing = [f"{pitch_mm:.6f}", f"{pitch_mm:.6f}"]
    image.Rows = image.Columns = matrix
    return image


def _common(uid: str, name: str) -> Dataset:
    """What all images of the study share (PS3.3 A.3.3). Names are made up."""
    number = int.from_bytes(sha256(name.encode()).digest()[:4], "big") % 1_000_000
    common = Dataset()
    common.SOPClassUID = CTImageStorage
    common.PatientName, common.PatientID = f"CHAOS^{number:06d}", f"CH{number:06d}"
    common.PatientBirthDate, common.PatientSex = "19500101", "O"
    common.AccessionNumber, common.StudyID = f"CHA{number:06d}", f"{number:06d}"
    common.StudyDate, common.StudyTime = "20261122", "120000"
    common.StudyDescription, common.BodyPartExamined, common.Modality = "CT HEAD", "HEAD", "CT"
    common.ReferringPhysicianName = ""
    common.StudyInstanceUID, common.SeriesInstanceUID = uid, _uid(name, "series")
    common.FrameOfReferenceUID = _uid(name, "frame of reference")
    common.SeriesNumber = 2
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.SliceThickness = f"{SLICE_MM:g}"
    common.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 16, 15, 1
    common.RescaleIntercept, common.RescaleSlope, common.RescaleType = str(INTERCEPT_HU), "1", "HU"
    return common


def _written(image: FileDataset, nth: int, *, lesion: bool, readable: bool) -> Picture:
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    part10 = buffer.getvalue()
    digest = sha256(memoryview(part10)[_data_set_at(part10) :]).hexdigest()
    return Picture(image.StudyInstanceUID, image.SOPInstanceUID, digest, nth, lesion, readable, part10)


def _data_set_at(part10: bytes) -> int:
    """Where the data set begins: after preamble, prefix and File Meta, whose length is its first value (PS3.10 7.1)."""
    first_value_at = 128 + 4 + 8
    length = int.from_bytes(part10[first_value_at : first_value_at + 4], "little")
    return first_value_at + 4 + length


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["lesion-triage chaos", *parts]))
