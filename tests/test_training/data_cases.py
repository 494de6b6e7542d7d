"""Tiny heads of our own making, written in the layouts of public data sets with their oddities. All synthetic."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

SIZE, PIXEL_MM, GAP_MM = 96, 2.4, 5.0
BLOOD_HU = 70
PREFIX = "1.2.826.0.1.3680043.10.1559"  # of test objects
CQ500_COLUMNS = (
    "ICH IPH IVH SDH EDH SAH BleedLocation-Left BleedLocation-Right ChronicBleed Fracture CalvarialFracture "
    "OtherFracture MassEffect MidlineShift"
).split()
PHYSIONET_HEADER = (
    "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,No_Hemorrhage,"
    "Fracture_Yes_No"
)
RSNA_SUBTYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")


def head(seed: int, slices: int = 6, *, bleeding: Iterable[int] = ()) -> NDArray[np.int16]:
    """(slices, SIZE, SIZE) HU: air, a skull, brain; a bleed on the right of the picture, front, in some slices."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(x / 30, y / 36)
    hu = np.where(radius < 1, 35.0, np.where(radius < 1.12, 900.0, -1000.0))
    volume = np.repeat(hu[None], slices, 0)
    for nth in bleeding:
        volume[nth][np.hypot(x - 14, y + 10) < 6] = BLOOD_HU
    noise = rng.normal(0, 1, volume.shape) * np.where(volume > 500, 200, 4)
    return np.round(volume + noise).clip(-1024, 3071).astype(np.int16)


def where_bleeding(hu: NDArray[np.int16]) -> tuple[int, int, int]:
    """Slice, row and column of the middle of what is as dense as blood and large."""
    inside = (hu > 55) & (hu < 100)
    densest = inside.sum((1, 2)).argmax()
    rows, columns = np.nonzero(inside[densest] & _wide(inside[densest]))
    return int(densest), int(rows.mean()), int(columns.mean())


def _wide(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Samples whose neighbours are set as well: the skull's inner rim is not."""
    grown = [np.roll(mask, shift, axis) for axis in (0, 1) for shift in (-2, 2)]
    return mask & np.logical_and.reduce(grown)


def image(hu: NDArray[np.int16], nth: int = 0, **tags: Any) -> Dataset:
    """One axial CT image with intercept −1024. A tag given as None is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # identifiers that are none
        return _image(hu, nth, tags)


def _image(hu: NDArray[np.int16], nth: int, tags: Mapping[str, Any]) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    plain: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{PREFIX}.9.{nth + 1}",
        "StudyInstanceUID": f"{PREFIX}.1",
        "SeriesInstanceUID": f"{PREFIX}.1.1",
        "PatientID": "synthetic-1",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "InstanceNumber": nth + 1,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-115.0, -115.0, GAP_MM * nth],
        "PixelSpacing": [PIXEL_MM, PIXEL_MM],
        "SliceThickness": GAP_MM,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    for name, value in {**plain, **tags}.items():
        if value is not None and name != "PixelData":
            setattr(data, name, value)
    stored = hu.astype(np.int32) - int(tags.get("RescaleIntercept", -1024) or 0)
    data.PixelData = tags.get("PixelData", stored.astype(np.uint16).tobytes())
    return data


def write(file: Path, data: Dataset) -> Path:
    """Part 10, also with identifiers that are none (as public sets have them)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    data.file_meta.MediaStorageSOPInstanceUID = f"{PREFIX}.9"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(file, enforce_file_format=True)
    return file


def write_series(folder: Path, hu: NDArray[np.int16], **tags: Any) -> list[Path]:
    """A series from the feet upwards, files in the opposite order of their names."""
    count = len(hu)
    return [write(folder / f"IM{count - nth:04d}.dcm", image(hu[nth], nth, **tags)) for nth in range(count)]


def write_folder(folder: Path, labels: Mapping[int, bool | None], *, slices: int = 6) -> Path:
    """Studies 1, 2, … of as many patients under folder/study_<n>, and the table labels.csv; None: no row."""
    rows = ["study_instance_uid,label"]
    for number, label in labels.items():
        uid = f"{PREFIX}.{number}"
        hu = head(number, slices, bleeding=range(2, 4) if label else ())
        tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"synthetic-{number}"}
        write_series(folder / f"study_{number}", hu, **tags)
        rows += [] if label is None else [f"{uid},{int(label)}"]
    table = folder / "labels.csv"
    table.write_text("\n".join(rows) + "\n", "utf-8")
    return table


def write_rsna(folder: Path, studies: Mapping[str, Sequence[frozenset[str]]]) -> list[str]:
    """`stage_2_train/ID_<hex>.dcm` flat, `stage_2_train.csv`; gives the images' IDs. studies: subtypes of each slice.

    Oddities of the set: identifiers are no UIDs, no SliceThickness, several windows, rows twice, and (every second
    study) 12 bits whose negative values came out at the top.
    """
    rows, images = ["ID,Label"], []
    for nth, (study, slices) in enumerate(studies.items()):
        bleeding = [at for at, subtypes in enumerate(slices) if subtypes]
        hu = head(nth, len(slices), bleeding=bleeding)
        for at, subtypes in enumerate(slices):
            name = f"ID_{nth:03x}{at:06x}"
            images.append(name)
            told = {subtype: int(subtype in subtypes) for subtype in RSNA_SUBTYPES[:-1]}
            rows += [f"{name}_{subtype},{here}" for subtype, here in {**told, "any": int(bool(subtypes))}.items()]
            write(folder / "stage_2_train" / f"{name}.dcm", _rsna_image(hu[at], at, study, wrapped=nth % 2 == 1))
    rows += rows[1:7]  # stage_2_train.csv holds some images twice
    (folder / "stage_2_train.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return images


def _rsna_image(hu: NDArray[np.int16], nth: int, study: str, *, wrapped: bool) -> Dataset:
    tags: dict[str, Any] = {
        "SOPInstanceUID": f"ID_{study}_{nth}",
        "StudyInstanceUID": f"ID_{study}",
        "SeriesInstanceUID": f"ID_{study}s",
        "PatientID": f"ID_p{study}",
        "SliceThickness": None,
        "WindowCenter": [40, 80],
        "WindowWidth": [80, 200],
        "ImageType": None,
        "InstanceNumber": None,
    }
    if wrapped:
        stored = np.where(hu < 0, hu.clip(-1000) + 4096, hu).astype(np.uint16)
        tags |= {"BitsStored": 12, "HighBit": 11, "RescaleIntercept": 0, "PixelData": stored.tobytes()}
    return image(hu, nth, **tags)


def write_cq500(folder: Path, votes: Mapping[int, Mapping[str, Sequence[int]]]) -> None:
    """`reads.csv` and the cases. votes: by case and column (ICH …) what each of the three readers says.

    Each case has a plain series, one after contrast, one of the bone, and one across the body.
    """
    names = [f"R{reader}:{column}" for reader in (1, 2, 3) for column in CQ500_COLUMNS]
    rows = [",".join(("name", "Category", *names))]
    for number, said in votes.items():
        cells = [str(said.get(name[3:], (0, 0, 0))[int(name[1]) - 1]) for name in names]
        rows.append(",".join((f"CQ500-CT-{number}", "B1", *cells)))
        study = folder / "qct01" / f"CQ500CT{number} CQ500CT{number}" / "Unknown Study"
        bleeding = range(2, 4) if sum(said.get("ICH", ())) > 1 else ()
        series: dict[str, dict[str, Any]] = {
            "CT PRE CONTRAST 5MM STD": {},
            "CT POST CONTRAST": {},
            "CT 0.625mm": {"SliceThickness": 0.625},
            "CT BONE": {"ConvolutionKernel": "BONE"},
            "CT SAG": {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        }
        for nth, (name, tags) in enumerate(series.items()):
            hu = head(100 * number + nth, bleeding=bleeding)
            uid = f"{PREFIX}.{number}.{nth}"
            write_series(study / name, hu, SeriesInstanceUID=uid, PatientID=f"CQ500-CT-{number}", **tags)
    (folder / "reads.csv").write_text("\n".join(rows) + "\n", "utf-8")


def write_physionet(
    folder: Path, patients: Mapping[int, Sequence[Sequence[str]]], *, upside_down: frozenset[int] = frozenset()
) -> None:
    """`ct_scans/NNN.nii`, `masks/NNN.nii`, both tables. patients: kinds of each slice from the feet, by number.

    As in the set: voxels lie as (columns, rows, slices), masks are 255, the header of the ages has a line break.
    """
    names = PHYSIONET_HEADER.split(",")[2:7]
    rows, people = [PHYSIONET_HEADER], ['"Patient Number","Age\n(years)",Gender,"Hemorrhage type"']
    for number, slices in patients.items():
        bleeding = [at for at, kinds in enumerate(slices) if kinds]
        hu = head(number, len(slices), bleeding=bleeding)
        mask = np.zeros(hu.shape, np.uint8)
        y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
        mask[bleeding] = np.where(np.hypot(x - 14, y + 10) < 6, 255, 0)
        flipped = -1 if number in upside_down else 1
        for name, voxels in (("ct_scans", hu), ("masks", mask)):
            write_nifti(folder / name / f"{number:03d}.nii", voxels, upside_down=flipped < 0)
        for at, kinds in enumerate(slices[::flipped], start=1):
            rows.append(f"{number},{at},{','.join(str(int(name in kinds)) for name in names)},{int(not kinds)},0")
        people.append(f"{number},{30 + number % 50},{'Male' if number % 2 else 'Female'},")
    (folder / "hemorrhage_diagnosis_raw_ct.csv").write_text("\n".join(rows) + "\n", "utf-8")
    (folder / "Patient_demographics.csv").write_text("\n".join(people) + "\n", "utf-8")


def write_nifti(file: Path, volume: NDArray[Any], *, upside_down: bool = False) -> None:
    """(slices, rows, columns) from the feet, as a NIfTI whose first axis grows to the patient's left, second back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([-PIXEL_MM, -PIXEL_MM, GAP_MM, 1.0])  # NIfTI's world is right, front, up
    if upside_down:
        volume, affine = volume[::-1], affine @ np.diag([1, 1, -1, 1.0])
    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(volume.transpose(2, 1, 0)), affine), file)
