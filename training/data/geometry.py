"""Which series of a study, in which order, on which grid: decided from headers alone. Pure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from statistics import median

from training.data.study import BadStudy, Doubt, Facts, Fault

Vector = tuple[float, float, float]
AXIAL_FROM = 0.8  # cosine of the slice's normal with the body axis: a gantry tilts by 30° (0.87), a head lies askew
SQUARE_FROM = 0.85  # of a row with the left-right axis; below, the patient lies turned by more than 30°
SAME_PLACE_MM = 0.05  # closer slices are one place, twice
SAME_SPACING = 0.02  # pixel spacings of one grid agree to this share
SAME_GAP = 0.15  # gaps between slices of one thickness agree to this share: positions are rounded to 0.1 mm
SAME_COSINE = 0.01
ROUTINE_MM = 5.0  # where a study has the same head several times, the series of routine thickness is taken
PLAUSIBLE_PIXEL_MM = (0.1, 2.5)  # a head's field of view is 150 to 400 mm on 128 to 1024 pixels
PLAUSIBLE_GAP_MM = (0.2, 20.0)
BONE = re.compile(r"\b(bone\w*|edge|knochen\w*|sharp|[bh]r?[67]\d\w?)\b")  # GE, Siemens and plain words
CONTRAST = re.compile(r"\b(post|contrast|cect|angio\w*|cta|venous)\b|\+c\b|\bc\+")
PLAIN = re.compile(r"\b(pre|plain|non|without|ncct|nect)\b")
NO_SLICES = frozenset({"LOCALIZER", "SCOUT", "DOSE", "SECONDARY", "MIP", "REFORMATTED", "PROJECTION IMAGE"})


@dataclass(frozen=True, slots=True)
class Header:
    """What one image says of itself. `words`: series description and folder, lower case; never told."""

    file: str
    study_uid: str
    series_uid: str
    patient: str  # pseudonymous; empty where none is said
    instance: int
    modality: str
    image_type: frozenset[str]
    frames: int
    matrix: tuple[int, int]
    pixel_mm: tuple[float, float] | None
    thickness_mm: float | None
    row: Vector | None
    column: Vector | None
    corner_mm: Vector | None
    words: str
    facts: Facts

    @property
    def is_slice(self) -> bool:
        """Neither a localiser nor a report, dose sheet or capture."""
        return self.modality == "CT" and not self.image_type & NO_SLICES and min(self.matrix) > 1

    @property
    def normal(self) -> Vector | None:
        """Unit vector across the slice, turned to the head (PS3.3 C.7.6.2.1.1)."""
        if self.row is None or self.column is None:
            return None
        (a, b, c), (d, e, f) = self.row, self.column
        across = (b * f - c * e, c * d - a * f, a * e - b * d)
        length = math.hypot(*across) * (-1 if across[2] < 0 else 1)
        return (
            None
            if abs(abs(length) - 1) > SAME_COSINE * 2
            else (across[0] / length, across[1] / length, across[2] / length)
        )

    @property
    def place_mm(self) -> float | None:
        """Along the normal, growing to the head."""
        if self.normal is None or self.corner_mm is None:
            return None
        return sum(a * b for a, b in zip(self.normal, self.corner_mm, strict=True))

    @property
    def axial(self) -> bool:
        """Whether a row runs across and the normal along the body."""
        return self.normal is not None and self.normal[2] >= AXIAL_FROM and self._squares()

    def _squares(self) -> bool:
        return self.row is not None and abs(self.row[0]) >= SQUARE_FROM


@dataclass(frozen=True)
class Stack:
    """One series in order, from the feet upwards. `flips`: axes of (n, H, W) to turn around to stand as Study says."""

    headers: tuple[Header, ...]
    z_mm: tuple[float, ...]
    spacing_mm: tuple[float, float, float]
    flips: tuple[int, ...]
    doubts: tuple[Doubt, ...]


def chosen_series(headers: Iterable[Header], place: str) -> list[Header]:
    """The one series that is read: axial, without contrast, soft kernel, nearest to routine thickness, most slices.

    Raises:
        BadStudy: there is no CT slice, or none that is axial.
    """
    slices = [header for header in headers if header.is_slice]
    if not slices:
        raise BadStudy(place, "holds no CT slice", Fault.EMPTY)
    if any(header.frames > 1 for header in slices):
        several = next(header.file for header in slices if header.frames > 1)
        raise BadStudy(several, "is an enhanced multi-frame image: convert it to single frames", Fault.CORRUPT)
    axial = [header for header in slices if header.axial]
    if not axial:
        raise BadStudy(slices[0].file, _why_not_axial(slices[0]), Fault.ORIENTATION)
    series = [list(group) for _, group in groupby(sorted(axial, key=_by_series), key=_by_series)]
    return min(series, key=_rank)


def _by_series(header: Header) -> str:
    return header.series_uid


def _why_not_axial(header: Header) -> str:
    if header.row is None or header.column is None:
        return "says no ImageOrientationPatient"
    return f"is not axial (rows run along {_rounded(header.row)}, columns along {_rounded(header.column)})"


def _rounded(vector: Vector) -> str:
    return "(" + ", ".join(f"{part:.2f}" for part in vector) + ")"


def _rank(series: Sequence[Header]) -> tuple[bool, bool, float, int, str]:
    """The smallest is chosen."""
    words = series[0].words
    contrast = bool(CONTRAST.search(words)) and not PLAIN.search(words)
    bone = bool(BONE.search(f"{words} {(series[0].facts.kernel or '').lower()}"))
    thickness = series[0].thickness_mm or ROUTINE_MM
    return contrast, bone, round(abs(thickness - ROUTINE_MM), 1), -len(series), series[0].series_uid


def stacked(series: Sequence[Header]) -> Stack:
    """The series in order on one grid.

    Raises:
        BadStudy: no position or spacing, or matrix, pixel spacing or orientation change inside the series.
    """
    usual = _usual(series)
    for header in series:
        _check_header(header, usual)
    inorder = sorted(series, key=lambda header: (header.place_mm or 0.0, header.instance, header.file))
    kept, doubts = _without_repeats(inorder)
    z_mm = tuple(header.place_mm or 0.0 for header in kept)
    gap_mm, uneven = _gap(kept, z_mm)
    row_mm, column_mm = kept[0].pixel_mm or (0.0, 0.0)  # checked above
    return Stack(tuple(kept), z_mm, (gap_mm, row_mm, column_mm), _flips(kept[0]), (*doubts, *uneven))


def _usual(series: Sequence[Header]) -> Header:
    """One of those of which there are most: what differs from it is the odd one out."""

    def grid(header: Header) -> tuple[object, ...]:
        return header.matrix, header.pixel_mm, header.row, header.column

    commonest = Counter(map(grid, series)).most_common(1)[0][0]
    return next(header for header in series if grid(header) == commonest)


def _check_header(header: Header, usual: Header) -> None:
    if header.pixel_mm is None or not _within(header.pixel_mm, PLAUSIBLE_PIXEL_MM):
        told = "no PixelSpacing" if header.pixel_mm is None else f"a PixelSpacing of {header.pixel_mm} mm"
        raise BadStudy(header.file, f"has {told}", Fault.SPACING)
    if header.place_mm is None:
        raise BadStudy(header.file, "says no ImagePositionPatient", Fault.SPACING)
    if header.matrix != usual.matrix:
        told = f"has {header.matrix} rows and columns, most of its series {usual.matrix}"
        raise BadStudy(header.file, told, Fault.MIXED_SPACING)
    if not _alike(header.pixel_mm, usual.pixel_mm or ()):
        told = f"has pixels of {header.pixel_mm} mm, most of its series {usual.pixel_mm}"
        raise BadStudy(header.file, told, Fault.MIXED_SPACING)
    if not _parallel(header, usual):
        raise BadStudy(header.file, "lies in another plane than most of its series", Fault.ORIENTATION)


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(abs(a / b - 1) <= SAME_SPACING for a, b in zip(one, other, strict=True))


def _within(values: Iterable[float], bounds: tuple[float, float]) -> bool:
    return all(bounds[0] <= value <= bounds[1] for value in values)


def _parallel(one: Header, other: Header) -> bool:
    pairs = zip((*(one.row or ()), *(one.column or ())), (*(other.row or ()), *(other.column or ())), strict=True)
    return all(abs(a - b) <= SAME_COSINE for a, b in pairs)


def _without_repeats(inorder: Sequence[Header]) -> tuple[list[Header], list[Doubt]]:
    kept, doubts = [inorder[0]], []
    for header in inorder[1:]:
        if abs((header.place_mm or 0.0) - (kept[-1].place_mm or 0.0)) > SAME_PLACE_MM:
            kept.append(header)
        else:
            doubts.append(Doubt(Fault.DUPLICATE, header.file, f"lies where {kept[-1].file} lies; left out", mild=True))
    return kept, doubts


def _gap(kept: Sequence[Header], z_mm: Sequence[float]) -> tuple[float, list[Doubt]]:
    """The usual distance between slices; what deviates is told of."""
    if len(kept) == 1:
        alone = kept[0].thickness_mm
        if alone is None or not _within([alone], PLAUSIBLE_GAP_MM):
            raise BadStudy(kept[0].file, "is the only slice and says no plausible SliceThickness", Fault.SPACING)
        return alone, []
    gaps = [after - before for before, after in pairwise(z_mm)]
    usual = float(median(gaps))
    if not _within([usual], PLAUSIBLE_GAP_MM):
        raise BadStudy(kept[0].file, f"and its neighbours lie {usual:.2f} mm apart", Fault.SPACING)
    return usual, uneven_gaps([header.file for header in kept], gaps, usual)


def uneven_gaps(files: Sequence[str], gaps_mm: Sequence[float], usual_mm: float) -> list[Doubt]:
    """One doubt for all gaps that differ, naming the file after the first."""
    odd = [nth for nth, gap in enumerate(gaps_mm) if abs(gap / usual_mm - 1) > SAME_GAP]
    if not odd:
        return []
    told = f"{len(odd)} of {len(gaps_mm)} gaps differ from {usual_mm:.2f} mm, the first is {gaps_mm[odd[0]]:.2f} mm"
    return [Doubt(Fault.MIXED_SPACING, files[odd[0] + 1], f"{told}: slices are missing or two thicknesses are mixed")]


def _flips(header: Header) -> tuple[int, ...]:
    """Columns grow to the patient's left (+x), rows to the back (+y): PS3.3 C.7.6.2.1.1."""
    across, down = header.row or (1.0, 0.0, 0.0), header.column or (0.0, 1.0, 0.0)
    return (*((1,) if down[1] < 0 else ()), *((2,) if across[0] < 0 else ()))
