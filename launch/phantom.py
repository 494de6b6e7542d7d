"""Phantom head CT studies as real DICOM, made in memory from a few rendered heads.

Pure: bytes and a seed in, pydicom data sets out. The heads come from `triage train demo-heads` (synthetic, noise-free);
shift, mirror and noise by seed make any number of studies that differ in their pixels.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

Truth = Literal["lesion", "clean"]

MATRIX = 512  # rows and columns delivered, as scanners do
INTERCEPT_HU = -1024
STORED_BITS = 12
NOISE_HU = (2.0, 4.0)  # standard deviation of a routine head protocol
GRAIN_PASSES = 2  # of a 1-2-1 filter: noise of a soft kernel is correlated over some pixels
SHIFT_PX = 14  # how far a patient may lie off-centre, in delivered pixels (6 mm)
BODY_FROM_HU = -300
SHIFT_HU = 1.5  # scanners differ by about this much


@dataclass(frozen=True)
class Head:
    """One rendered head: HU (slices, rows, columns) int16, feet first, and what is known to be in it."""

    hu: NDArray[np.int16]
    pitch_mm: float
    spacing_mm: float
    lowest_mm: float
    truth: Truth
    lesion: str | None
    labels_by_slice: tuple[tuple[float, ...], ...]  # any, then the five kinds; 0.5: only grazed


@dataclass(frozen=True)
class PhantomStudy:
    """One study of one series. `images` are Part 10 data sets, feet first."""

    study_instance_uid: str
    truth: Truth
    lesion: str | None
    images: tuple[FileDataset, ...]


def read_heads(packed: bytes, record: str) -> tuple[Head, ...]:
    """The heads in an asset (`demo_heads.npz`) and its side record (`demo_heads.json`).

    Raises:
        ValueError: the two do not belong together.
    """
    told = json.loads(record)
    with np.load(io.BytesIO(packed)) as stored:
        if len(stored.files) != len(told["heads"]):
            raise ValueError("the phantom heads and their record differ in number")
        return tuple(_head(stored[f"head_{nth}"], one, told) for nth, one in enumerate(told["heads"]))


def _head(hu: NDArray[np.int16], one: dict[str, Any], told: dict[str, Any]) -> Head:
    return Head(
        hu=hu,
        pitch_mm=told["pitch_mm"],
        spacing_mm=told["spacing_mm"],
        lowest_mm=told["lowest_mm"],
        truth=one["truth"],
        lesion=one["lesion"],
        labels_by_slice=tuple(tuple(row) for row in one["labels_by_slice"]),
    )


def studies(heads: tuple[Head, ...], count: int, seed: int, taken: datetime) -> Iterator[PhantomStudy]:
    """`count` studies, bleeding and clean in turn as far as there are heads of both; the same seed, the same bytes."""
    sick = [head for head in heads if head.truth == "lesion"]
    well = [head for head in heads if head.truth == "clean"]
    rng = np.random.default_rng([seed, 0])
    orders = [rng.permutation(len(group)) for group in (well, sick)]
    for nth in range(count):
        group, order = (sick, orders[1]) if nth % 2 else (well, orders[0])
        yield phantom_study(group[order[(nth // 2) % len(group)]], f"{seed}.{nth}", taken)


def phantom_study(head: Head, name: str, taken: datetime) -> PhantomStudy:
    """One study of a head. `name` decides every UID and every pixel; `taken` is the study's date and time."""
    rng = np.random.default_rng([*name.encode(), 1])
    mirrored = bool(rng.integers(2))
    down, right = (int(v) for v in rng.integers(-SHIFT_PX, SHIFT_PX + 1, 2))
    common = _common(head, name, taken)
    sigma_hu, offset_hu = rng.uniform(*NOISE_HU), rng.normal(0, SHIFT_HU)
    images = []
    for nth, plane in enumerate(head.hu):
        fine = _enlarged(plane[:, ::-1] if mirrored else plane, (down, right))
        inside = fine > BODY_FROM_HU  # air carries less noise and no offset
        fine = fine + _noise(rng) * sigma_hu * np.where(inside, 1.0, 0.5) + offset_hu * inside
        images.append(_image(common, head, nth, fine, name))
    return PhantomStudy(str(common.StudyInstanceUID), head.truth, head.lesion, tuple(images))


def _enlarged(plane: NDArray[np.int16], shift_px: tuple[int, int]) -> NDArray[np.float32]:
    """(MATRIX, MATRIX) HU by linear interpolation, moved; what comes in from outside is air."""
    size = plane.shape[0]
    at = (np.arange(MATRIX) + 0.5) * size / MATRIX - 0.5
    low = np.clip(np.floor(at).astype(int), 0, size - 2)
    share = np.clip(at - low, 0, 1).astype(np.float32)
    rows = plane[low] * (1 - share)[:, None] + plane[low + 1] * share[:, None]
    fine = rows[:, low] * (1 - share) + rows[:, low + 1] * share
    moved = np.full_like(fine, -1000.0)
    (down, right), side = shift_px, MATRIX
    moved[max(down, 0) : side + min(down, 0), max(right, 0) : side + min(right, 0)] = fine[
        max(-down, 0) : side - max(down, 0), max(-right, 0) : side - max(right, 0)
    ]
    return moved


def _noise(rng: np.random.Generator) -> NDArray[np.float32]:
    grain = rng.standard_normal((MATRIX, MATRIX), dtype=np.float32)
    for _ in range(GRAIN_PASSES):
        for axis in (0, 1):
            grain = 0.5 * grain + 0.25 * (np.roll(grain, 1, axis) + np.roll(grain, -1, axis))
    return np.asarray(grain / grain.std(), np.float32)


def _uid(*parts: str) -> str:
    return str(generate_uid(entropy_srcs=["lesion-triage phantom", *parts]))


def _common(head: Head, name: str, taken: datetime) -> Dataset:
    """What all images of the study share: patient, study, series and frame of reference modules (PS3.3 A.3.3)."""
    number = abs(hash_of(name)) % 1_000_000
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 100"
    common.SOPClassUID = CTImageStorage
    common.PatientName = f"PHANTOM^{number:06d}"
    common.PatientID = f"PH{number:06d}"
    common.PatientBirthDate = f"{1935 + number % 60}0101"
    common.PatientSex = "O"
    common.AccessionNumber = f"PHA{number:06d}"
    common.StudyID = f"{number:06d}"
    common.ReferringPhysicianName = ""
    common.StudyDate = common.SeriesDate = common.AcquisitionDate = common.ContentDate = taken.strftime("%Y%m%d")
    common.StudyTime = common.SeriesTime = common.AcquisitionTime = common.ContentTime = taken.strftime("%H%M%S")
    common.StudyDescription = "CT HEAD WO CONTRAST"
    common.SeriesDescription = "Axial 5 mm"
    common.StudyInstanceUID = _uid(name, "study")
    common.SeriesInstanceUID = _uid(name, "series")
    common.FrameOfReferenceUID = _uid(name, "frame of reference")
    common.PositionReferenceIndicator = ""
    common.SeriesNumber = 2
    common.Modality = "CT"
    common.Manufacturer = "Lesion Triage phantom"
    common.ManufacturerModelName = "synthetic"
    common.BodyPartExamined = "HEAD"
    common.PatientPosition = "HFS"
    common.KVP = "120"
    common.ConvolutionKernel = "phantom soft"
    _describe_pixels(common, head)
    return common


def _describe_pixels(common: Dataset, head: Head) -> None:
    """Image plane and image pixel modules (PS3.3 C.7.6.2, C.7.6.3), CT image module (C.8.2.1)."""
    pitch_mm = head.pitch_mm * head.hu.shape[1] / MATRIX
    common.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    common.PixelSpacing = [f"{pitch_mm:.6f}", f"{pitch_mm:.6f}"]
    common.SliceThickness = f"{head.spacing_mm:g}"
    common.SpacingBetweenSlices = f"{head.spacing_mm:g}"
    common.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    common.SamplesPerPixel = 1
    common.PhotometricInterpretation = "MONOCHROME2"
    common.Rows = common.Columns = MATRIX
    common.BitsAllocated, common.BitsStored, common.HighBit = 16, 16, 15
    common.PixelRepresentation = 1
    common.RescaleIntercept, common.RescaleSlope, common.RescaleType = str(INTERCEPT_HU), "1", "HU"
    common.WindowCenter, common.WindowWidth = "40", "80"


def _image(common: Dataset, head: Head, nth: int, hu: NDArray[np.float32], name: str) -> FileDataset:
    """The nth image from the feet, as a Part 10 data set in Explicit VR Little Endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = _uid(name, "image", str(nth))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.update(common)
    half_mm = (MATRIX - 1) / 2 * float(common.PixelSpacing[0])
    z_mm = head.lowest_mm + nth * head.spacing_mm
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    image.InstanceNumber = nth + 1
    image.AcquisitionNumber = 1
    image.ImagePositionPatient = [f"{-half_mm:.4f}", f"{-half_mm:.4f}", f"{z_mm:.3f}"]
    image.SliceLocation = f"{z_mm:.3f}"
    stored = np.clip(np.round(hu) - INTERCEPT_HU, 0, (1 << STORED_BITS) - 1).astype("<i2")
    image.PixelData = stored.tobytes()
    return image


def hash_of(name: str) -> int:
    """A number that is the same in every process, unlike `hash`."""
    return int.from_bytes(name.encode()[-8:], "big") * 2654435761 % (1 << 31)
