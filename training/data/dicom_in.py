"""DICOM files → headers and pixels in HU. pydicom's exceptions end here as BadStudy with the file's name."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from scipy.ndimage import label

from contracts.tensors import HU_HIGH, HU_LOW, LARGEST_LOSSY_RATIO
from training.data.geometry import Header, Stack, Vector, chosen_series, stacked
from training.data.hounsfield import AIR_BELOW_HU, AIR_SHARE, bone_is_cut, unwrapped, why_not_hu
from training.data.study import BadStudy, Doubt, Entry, Facts, Fault, NotHounsfield, Study, Truth

T = TypeVar("T")
TAGS = [
    *("StudyInstanceUID", "SeriesInstanceUID", "PatientID", "IssuerOfPatientID", "InstanceNumber", "Modality"),
    *("ImageType", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "SliceThickness", "ImageOrientationPatient"),
    *("ImagePositionPatient", "SeriesDescription", "PatientAge", "PatientSex", "Manufacturer"),
    *("ManufacturerModelName", "ConvolutionKernel"),
]
SHARED = ("study_uid", "series_uid", "patient", "image_type", "matrix", "pixel_mm", "row", "column", "words", "facts")
OTHER_SUFFIXES = frozenset({".csv", ".txt", ".md", ".json", ".png", ".jpg", ".pdf", ".zip", ".nii", ".gz", ".html"})
NO_DICOM = "is no DICOM file"
DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".ima"})  # another file that cannot be read may be a licence text
UNITS_PER_YEAR = {"D": 365.25, "W": 365.25 / 7, "M": 12.0, "Y": 1.0}  # of PatientAge (PS3.5 6.2, AS)
WRAPPED_BITS, WRAPPED_AIR_HU, WRAPPED_ABOVE = 12, -1000, -100  # see hounsfield.unwrapped; intercept at or above
TISSUE_HU = (-200.0, 200.0)  # padding inside this range could be anatomy


def files_under(folder: Path) -> list[Path]:
    """Every file that may be DICOM, in a stable order.

    Raises:
        BadStudy: there is no such folder.
    """
    if not folder.is_dir():
        raise BadStudy(folder, "there is no such folder", Fault.EMPTY)
    found = (Path(at) / name for at, _, names in os.walk(folder) for name in names if not name.startswith("."))
    return sorted(file for file in found if file.suffix.lower() not in OTHER_SUFFIXES and file.name != "DICOMDIR")


def read_headers(files: Iterable[Path]) -> tuple[list[Header], list[Doubt]]:
    """The headers, and a doubt for each file that has none."""
    headers, doubts = [], []
    seen: dict[Any, Any] = {}
    for file in files:
        try:
            headers.append(_sharing(read_header(file), seen))
        except BadStudy as bad:
            stranger = bad.reason == NO_DICOM and file.suffix.lower() not in DICOM_SUFFIXES
            doubts.append(Doubt(bad.fault, bad.file, bad.reason, mild=stranger))
    return headers, doubts


def _sharing(header: Header, seen: dict[Any, Any]) -> Header:
    """Equal values are one object: RSNA ICH has 750,000 headers, and a series repeats itself."""
    return replace(header, **{name: seen.setdefault(getattr(header, name), getattr(header, name)) for name in SHARED})


def read_header(file: Path) -> Header:
    """One file's header; pixels stay on the disk.

    Raises:
        BadStudy: it is no DICOM, or it is damaged.
    """
    return _guarded(file, lambda: _header(file, _opened(file, headers_only=True)))


def _guarded(file: Path | str, work: Callable[[], T]) -> T:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # public sets carry identifiers and dates that pydicom warns of
            return work()
    except BadStudy:
        raise
    except InvalidDicomError as problem:
        raise BadStudy(file, NO_DICOM) from problem
    except Exception as problem:  # pydicom raises whatever it trips over, and has no base class for it
        raise BadStudy(file, f"cannot be read ({type(problem).__name__})") from problem


def _opened(file: Path | str, *, headers_only: bool) -> pydicom.Dataset:
    if headers_only:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS)
    return pydicom.dcmread(file)


def _header(file: Path, data: pydicom.Dataset) -> Header:
    if not data.get("StudyInstanceUID") or not data.get("Modality"):
        raise BadStudy(file, "ends before its header does, or belongs to no study")
    if data.Modality == "CT" and not (data.get("Rows") and data.get("Columns")):
        raise BadStudy(file, "ends before its header does: no Rows and Columns")
    orientation = _floats(data.get("ImageOrientationPatient"), 6)
    return Header(
        file=str(file),
        study_uid=str(data.get("StudyInstanceUID") or ""),
        series_uid=str(data.get("SeriesInstanceUID") or ""),
        patient=pseudonym(str(data.get("IssuerOfPatientID") or ""), str(data.get("PatientID") or "")),
        instance=int(data.get("InstanceNumber") or 0),
        modality=str(data.get("Modality") or ""),
        image_type=frozenset(str(word).upper() for word in data.get("ImageType") or ()),
        frames=int(data.get("NumberOfFrames") or 1),
        matrix=(int(data.get("Rows") or 0), int(data.get("Columns") or 0)),
        pixel_mm=_pair(_floats(data.get("PixelSpacing"), 2)),
        thickness_mm=_number(data.get("SliceThickness")),
        row=_vector(orientation and orientation[:3]),
        column=_vector(orientation and orientation[3:]),
        corner_mm=_vector(_floats(data.get("ImagePositionPatient"), 3)),
        words=f"{data.get('SeriesDescription') or ''} {file.parent.name}".lower().replace("_", " "),
        facts=_facts(data),
    )


def pseudonym(*parts: str) -> str:
    """A key that tells patients apart and stays in memory; empty where the last part, the identifier, is."""
    if not parts[-1].strip():
        return ""
    return hashlib.sha256("\x1f".join(part.strip() for part in parts).encode()).hexdigest()[:16]


def _facts(data: pydicom.Dataset) -> Facts:
    scanner = " ".join(str(data.get(name) or "").strip() for name in ("Manufacturer", "ManufacturerModelName")).strip()
    kernel = data.get("ConvolutionKernel") or ""
    told = "/".join(map(str, kernel)) if not isinstance(kernel, str) else kernel
    sex = str(data.get("PatientSex") or "").strip().upper()
    return Facts(
        age_years=_age(str(data.get("PatientAge") or "").strip()),
        sex=sex if sex in {"F", "M", "O"} else None,
        scanner=scanner or None,
        slice_mm=_number(data.get("SliceThickness")),
        kernel=told or None,
    )


def _age(text: str) -> float | None:
    unit, count = text[-1:].upper(), text[:-1]
    return int(count) / UNITS_PER_YEAR[unit] if unit in UNITS_PER_YEAR and count.isdigit() else None


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def _floats(values: Any, count: int) -> tuple[float, ...] | None:
    if values is None or isinstance(values, str) or not hasattr(values, "__len__") or len(values) != count:
        return None
    numbers = tuple(_number(value) for value in values)
    return None if None in numbers else tuple(number for number in numbers if number is not None)


def _pair(values: tuple[float, ...] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _vector(values: tuple[float, ...] | None) -> Vector | None:
    return None if values is None else (values[0], values[1], values[2])


def read_study(entry: Entry, headers: Iterable[Header], truth: Callable[[Stack], Truth], source: str) -> Study:
    """The chosen series of these headers with its pixels.

    Raises:
        BadStudy: NotHounsfield among others; each names the file.
    """
    stack = stacked(chosen_series(headers, entry.place))
    pixels = [read_hu(header.file) for header in stack.headers]
    hu = np.flip(np.stack([image for image, _ in pixels]), stack.flips)
    reason = why_not_hu(hu)
    if reason is not None:
        raise NotHounsfield(stack.headers[0].file, f"and its series hold no HU: {reason}")
    doubts = [*stack.doubts, *(doubt for _, told in pixels for doubt in told), *_cut(hu, stack)]
    return Study(
        uid=entry.uid,
        patient=entry.patient,
        hu=np.ascontiguousarray(hu),
        spacing_mm=stack.spacing_mm,
        z_mm=np.array(stack.z_mm, np.float32),
        truth=truth(stack),
        facts=stack.headers[0].facts,
        source=source,
        doubts=tuple(doubts),
    )


def _cut(hu: NDArray[np.int16], stack: Stack) -> Sequence[Doubt]:
    if not bone_is_cut(hu):
        return ()
    return (Doubt(Fault.NOT_HU, stack.headers[0].file, f"bone is cut off at {int(hu.max())} HU", mild=True),)


def read_hu(file: str) -> tuple[NDArray[np.int16], list[Doubt]]:
    """One image in HU (rows, columns), padding as air, within −1024…3071.

    Raises:
        BadStudy: damaged pixels; NotHounsfield: no rescale, another unit, 8 bits.
    """
    return _guarded(file, lambda: _hu(file, _opened(file, headers_only=False)))


def _hu(file: str, data: pydicom.Dataset) -> tuple[NDArray[np.int16], list[Doubt]]:
    slope, intercept = _number(data.get("RescaleSlope")), _number(data.get("RescaleIntercept"))
    _check_units(file, data, slope, intercept)
    _check_compression(file, data)
    stored = data.pixel_array
    if stored.ndim != 2:
        raise BadStudy(file, f"has pixels of shape {stored.shape}")
    doubts, wrapped = [], _wrapped(data, stored, intercept or 0.0)
    if wrapped:
        stored = unwrapped(stored, WRAPPED_BITS, WRAPPED_AIR_HU)
        doubts.append(Doubt(Fault.NOT_HU, file, "stores negative values as unsigned ones; turned back", mild=True))
    hu = stored.astype(np.float32) * np.float32(slope or 1.0) + np.float32(intercept or 0.0)
    hu[_padding(data, stored, slope or 1.0, intercept or 0.0)] = HU_LOW
    return np.clip(np.rint(hu), HU_LOW, HU_HIGH).astype(np.int16), doubts


def _check_compression(file: str, data: pydicom.Dataset) -> None:
    told = data.get("LossyImageCompressionRatio")
    ratio = max((_number(one) or 0.0 for one in (told if isinstance(told, MultiValue) else [told])), default=0.0)
    if ratio > LARGEST_LOSSY_RATIO:
        raise BadStudy(file, f"lossy compression of {ratio:.0f} to 1 has left too little of the image")


def _check_units(file: str, data: pydicom.Dataset, slope: float | None, intercept: float | None) -> None:
    if slope is None or intercept is None or slope == 0:
        raise NotHounsfield(file, "has no RescaleSlope and RescaleIntercept: its numbers are no HU")
    if str(data.get("RescaleType") or "HU") not in {"HU", "HU_MOD"}:
        raise NotHounsfield(file, f"is in {data.RescaleType}, not in HU (RescaleType)")
    if int(data.get("BitsStored") or 16) <= 8:
        raise NotHounsfield(file, f"has {data.BitsStored} bits a pixel: windowed, no HU")


def _wrapped(data: pydicom.Dataset, stored: NDArray[Any], intercept: float) -> bool:
    unsigned = data.get("BitsStored") == WRAPPED_BITS and data.get("PixelRepresentation") == 0
    if not unsigned or intercept < WRAPPED_ABOVE:
        return False
    top = (1 << WRAPPED_BITS) + WRAPPED_AIR_HU
    return bool((stored >= top - 100).mean() >= AIR_SHARE and stored.min() > AIR_BELOW_HU)


def _padding(data: pydicom.Dataset, stored: NDArray[Any], slope: float, intercept: float) -> NDArray[np.bool_]:
    """Pixels outside the reconstructed circle (PS3.3 C.7.5.1.1.2), as the service takes them.

    Where padding has the density of tissue, only what hangs together with the picture's border is padding.
    """
    value = _stored(data.get("PixelPaddingValue"), stored.dtype)
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = _stored(data.get("PixelPaddingRangeLimit"), stored.dtype)
    low, high = sorted((value, value if limit is None else limit))
    mask = (stored >= low) & (stored <= high)
    if not any(TISSUE_HU[0] <= end * slope + intercept <= TISSUE_HU[1] for end in (low, high)):
        return mask
    regions, _ = label(mask)
    border = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return mask & np.isin(regions, border[border > 0])


def _stored(value: Any, dtype: np.dtype[Any]) -> int | None:
    """Padding is written US or SS whatever the pixels are: the same bits, read as the pixels are."""
    number = _number(value)
    if number is None:
        return None
    bits = 8 * dtype.itemsize
    whole = int(number) % 2**bits
    return whole - 2**bits if dtype.kind == "i" and whole >= 2 ** (bits - 1) else whole


def mark_of(files: Iterable[Path]) -> str:
    """Changes when a file comes, goes or is written again. Sizes and times, not contents: cheap."""
    told = hashlib.sha256()
    for file in files:
        stat = file.stat()
        told.update(f"{file.name}\x1f{stat.st_size}\x1f{stat.st_mtime_ns}\x1e".encode())
    return told.hexdigest()[:16]
