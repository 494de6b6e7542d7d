"""What routing may know of an instance and of each of its frames: plain values, read once from the data set. Pure.

Single-frame objects carry them at the top; enhanced multi-frame objects in functional groups, per frame or shared
(PS3.3 C.7.6.16). A value that is absent or unreadable is None or empty: routing decides what that means.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset, Sequence

from contracts.errors import NotAnalysable
from contracts.reasons import Reason

Vector = tuple[float, float, float]
_TEXTS = ("StudyDescription", "SeriesDescription", "ProtocolName", "RequestedProcedureDescription")
_ANATOMY = ("AnatomicRegionSequence",)
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
SEQUENCES = (  # every one that is asked for here, at whatever depth
    *_ANATOMY,
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "FrameAnatomySequence",
    "CTImageFrameTypeSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "PlaneOrientationSequence",
    "PlanePositionSequence",
)
_DIAGONAL_TOLERANCE = 1e-2  # direction cosines are unit vectors (PS3.3 C.7.6.2.1.1)


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """One SOP instance. ``body_part`` and ``texts`` are upper case and stay inside this room: they may name people."""

    modality: str
    sop_class_uid: str
    image_type: tuple[str, ...]
    body_part: str
    texts: tuple[str, ...]
    rows: int
    columns: int
    frames: int
    samples: int
    has_pixels: bool
    lossy: bool
    lossy_ratio: float  # of the strongest of its compressions, as told; 0 where nothing is told

    def __repr__(self) -> str:
        """Never the texts: a repr ends up in logs."""
        return f"InstanceFacts({self.modality}, {self.sop_class_uid}, {self.rows}×{self.columns}×{self.frames})"


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """One frame: spacing (row, column) and thickness in mm, direction cosines of row and column, position in mm."""

    image_type: tuple[str, ...]
    spacing_mm: tuple[float, float] | None
    thickness_mm: float | None
    row: Vector | None
    column: Vector | None
    corner_mm: Vector | None
    slope: float | None
    intercept: float | None
    units: str

    @property
    def normal(self) -> Vector | None:
        """Unit vector across the slice; None where the direction cosines are missing or no unit vectors."""
        if self.row is None or self.column is None:
            return None
        (a, b, c), (d, e, f) = self.row, self.column
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        return normal if abs(math.hypot(*normal) - 1.0) < _DIAGONAL_TOLERANCE else None

    @property
    def position_mm(self) -> float | None:
        """Of the slice along its normal (PS3.3 C.7.6.2.1.1)."""
        if self.normal is None or self.corner_mm is None:
            return None
        return sum(a * b for a, b in zip(self.normal, self.corner_mm, strict=True))


def value_of(data: Dataset, name: str) -> Any:
    """An element's value, None where absent. pydicom converts a value when it is first read, and may fail at that.

    Raises NotAnalysable (RECORD_UNREADABLE).
    """
    try:
        return data.get(name)
    except Exception as problem:  # there is no closed list of what it raises
        raise NotAnalysable(Reason.RECORD_UNREADABLE, type(problem).__name__) from problem


def instance_facts(data: Dataset) -> InstanceFacts:
    """Of the whole instance. Raises NotAnalysable (RECORD_UNREADABLE)."""
    return InstanceFacts(
        modality=_text(data, "Modality"),
        sop_class_uid=_text(data, "SOPClassUID"),
        image_type=_words(value_of(data, "ImageType")),
        body_part=_text(data, "BodyPartExamined"),
        texts=(*(_text(data, name) for name in _TEXTS), *_anatomy(data)),
        rows=_count(data, "Rows"),
        columns=_count(data, "Columns"),
        frames=max(1, _count(data, "NumberOfFrames")),
        samples=max(1, _count(data, "SamplesPerPixel")),
        has_pixels=any(name in data for name in PIXELS),
        lossy=_text(data, "LossyImageCompression") == "01",
        lossy_ratio=_largest(value_of(data, "LossyImageCompressionRatio")),
    )


def frame_facts(data: Dataset, number: int) -> FrameFacts:
    """Of one frame, ``number`` from 0. Raises NotAnalysable (RECORD_UNREADABLE)."""
    find = _finder(data, number)
    orientation = _floats(find("PlaneOrientationSequence", "ImageOrientationPatient"), 6)
    return FrameFacts(
        image_type=_words(find("CTImageFrameTypeSequence", "FrameType")) or _words(value_of(data, "ImageType")),
        spacing_mm=_pair(_floats(find("PixelMeasuresSequence", "PixelSpacing"), 2)),
        thickness_mm=_float(find("PixelMeasuresSequence", "SliceThickness")),
        row=_vector(orientation[:3]),
        column=_vector(orientation[3:]),
        corner_mm=_vector(_floats(find("PlanePositionSequence", "ImagePositionPatient"), 3)),
        slope=_float(find("PixelValueTransformationSequence", "RescaleSlope")),
        intercept=_float(find("PixelValueTransformationSequence", "RescaleIntercept")),
        units=str(find("PixelValueTransformationSequence", "RescaleType") or "").strip().upper(),
    )


def _finder(data: Dataset, number: int) -> Callable[[str, str], Any]:
    groups = [
        *_group(data, "PerFrameFunctionalGroupsSequence", number),
        *_group(data, "SharedFunctionalGroupsSequence", 0),
    ]

    def find(sequence: str, name: str) -> Any:
        for group in groups:
            for item in _items(group, sequence):
                if name in item:
                    return value_of(item, name)
        return value_of(data, name)

    return find


def _group(data: Dataset, sequence: str, number: int) -> Iterator[Dataset]:
    items = _items(data, sequence)
    if number < len(items):
        yield items[number]


def _items(data: Dataset, sequence: str) -> list[Dataset]:
    value = value_of(data, sequence)
    return list(value) if isinstance(value, Sequence) else []  # another VR may stand there


def _anatomy(data: Dataset) -> Iterator[str]:
    """Code meanings of anatomic regions, at the top and in the shared functional group (PS3.3 C.7.6.16.2.8)."""
    frames = [
        anatomy
        for shared in _group(data, "SharedFunctionalGroupsSequence", 0)
        for anatomy in _items(shared, "FrameAnatomySequence")
    ]
    for holder in (data, *frames):
        for name in _ANATOMY:
            yield from (_text(code, "CodeMeaning") for code in _items(holder, name))


def _text(data: Dataset, name: str) -> str:
    return str(value_of(data, name) or "").strip().upper()


def _words(value: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    many = hasattr(value, "__iter__") and not isinstance(value, str | bytes)  # another VR gives numbers or bytes
    return tuple(str(word).strip().upper() for word in (value if many else [value]))


def _count(data: Dataset, name: str) -> int:
    try:
        return int(value_of(data, name) or 0)
    except (TypeError, ValueError, OverflowError):
        return 0


def _float(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _floats(value: Any, count: int) -> list[float]:
    """Exactly that many finite numbers, or none at all."""
    values = [_float(item) for item in (value if hasattr(value, "__iter__") and not isinstance(value, str) else [])]
    numbers = [number for number in values if number is not None]
    return numbers if len(values) == len(numbers) == count else []


def _largest(value: Any) -> float:
    """Of one number or several; 0 where there is none."""
    many = hasattr(value, "__iter__") and not isinstance(value, str)
    return max((number for item in (value if many else [value]) if (number := _float(item)) is not None), default=0.0)


def _pair(values: list[float]) -> tuple[float, float] | None:
    return (values[0], values[1]) if values and min(values) > 0.0 else None


def _vector(values: list[float]) -> Vector | None:
    return (values[0], values[1], values[2]) if values else None
