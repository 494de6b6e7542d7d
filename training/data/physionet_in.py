"""PhysioNet CT-ICH 1.3.1: scans and masks as `NNN.nii`, `hemorrhage_diagnosis_raw_ct.csv` with a row a slice, from 1.

The one set with masks. A mask says *blood* and not of which kind; the row does, and where it names exactly one, the
mask is of that kind. 059 to 065 are missing in the set itself. Its licence asks things of whoever uses it: read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

from contracts.findings import Label
from contracts.tensors import HU_HIGH, HU_LOW
from training.data.dicom_in import mark_of
from training.data.geometry import PLAUSIBLE_GAP_MM, PLAUSIBLE_PIXEL_MM
from training.data.hounsfield import why_not_hu
from training.data.rsna_in import truth_of_slices
from training.data.study import (
    COLUMNS,
    UNNAMED_BIT,
    BadStudy,
    Doubt,
    Entry,
    Facts,
    Fault,
    NotHounsfield,
    Study,
    Truth,
)
from training.data.table_in import read_table, yes_or_no

TABLE, SCANS, MASKS = "hemorrhage_diagnosis_raw_ct.csv", "ct_scans", "masks"
LABEL_OF = {
    "intraventricular": Label.INTRAVENTRICULAR,
    "intraparenchymal": Label.INTRAPARENCHYMAL,
    "subarachnoid": Label.SUBARACHNOID,
    "epidural": Label.SUBDURAL_EPIDURAL,
    "subdural": Label.SUBDURAL_EPIDURAL,
}
NONE = "no_hemorrhage"
MISSING_IN_THE_SET = range(59, 66)
SEXES = {"male": "M", "female": "F", "m": "M", "f": "F"}


@dataclass(frozen=True)
class _Volume:
    """voxels (n, H, W) as Study wants them; upside_down: slices were turned around, and so must the rows be."""

    voxels: NDArray[np.float32]
    spacing_mm: tuple[float, float, float]
    upside_down: bool


class PhysionetSource:
    """`folder` holds the table, the scans and the masks; `table` names another table."""

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self._folder = folder
        self._file = table or folder / TABLE

    @property
    def version(self) -> str:
        """Raise the number when this loader reads otherwise."""
        return "physionet-1"

    def entries(self) -> Sequence[Entry]:
        """In order of the patient's number."""
        return self._found[0]

    def doubts(self) -> Sequence[Doubt]:
        """Rows without a scan, scans without rows, rows that contradict themselves."""
        return self._found[1]

    def load(self, entry: Entry) -> Study:
        """Scan, labels by slice, mask."""
        number, file = int(entry.uid), Path(entry.place)
        scan = read_nifti(file)
        by_slice = self._by_slice(number, file, len(scan.voxels))[:: -1 if scan.upside_down else 1]
        hu = np.clip(np.rint(scan.voxels), HU_LOW, HU_HIGH).astype(np.int16)
        reason = why_not_hu(hu)
        if reason is not None:
            raise NotHounsfield(file, f"holds no HU: {reason}")
        masks, doubts = self._masks(number, scan, by_slice)
        said = truth_of_slices(np.ascontiguousarray(by_slice))
        return Study(
            uid=entry.uid,
            patient=entry.patient,
            hu=hu,
            spacing_mm=scan.spacing_mm,
            z_mm=np.arange(len(hu), dtype=np.float32) * scan.spacing_mm[0],
            truth=Truth(said.any, said.by_label, said.by_slice, masks),
            facts=self._facts.get(number, Facts()),
            source="physionet",
            doubts=doubts,
        )

    def _by_slice(self, number: int, file: Path, slices: int) -> NDArray[np.float32]:
        rows = self._rows[number]
        if sorted(rows) != list(range(1, slices + 1)):
            told = f"has {slices} slices, {self._file} has {len(rows)} rows of it (SliceNumber 1 to {slices} each once)"
            raise BadStudy(file, told, Fault.LABEL_MISSING)
        return np.stack([rows[nth] for nth in range(1, slices + 1)])

    def _masks(
        self, number: int, scan: _Volume, by_slice: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8] | None, tuple[Doubt, ...]]:
        file = _nifti(self._folder / MASKS, number)
        if file is None:
            return None, (Doubt(Fault.LABEL_MISSING, str(self._folder / MASKS), f"there is no mask of {number:03d}"),)
        drawn = read_nifti(file)
        if drawn.voxels.shape != scan.voxels.shape:
            told = f"is {drawn.voxels.shape}, its scan {scan.voxels.shape} (slices, rows, columns)"
            raise BadStudy(file, told, Fault.LABEL_CONTRADICTION)
        return named_masks(drawn.voxels > 0, by_slice), _against(file, drawn.voxels > 0, by_slice)

    @cached_property
    def _facts(self) -> dict[int, Facts]:
        return _demographics(self._folder)

    @cached_property
    def _rows(self) -> dict[int, dict[int, NDArray[np.float32]]]:
        found: dict[int, dict[int, NDArray[np.float32]]] = defaultdict(dict)
        for line, row in enumerate(read_table(self._file, ("patientnumber", "slicenumber", *LABEL_OF, NONE)), start=2):
            number, nth = (_whole(self._file, line, row.get(name, "")) for name in ("patientnumber", "slicenumber"))
            found[number][nth] = _labels(self._file, line, row)
        return dict(found)

    @cached_property
    def _found(self) -> tuple[tuple[Entry, ...], tuple[Doubt, ...]]:
        entries, doubts = [], []
        for number, rows in sorted(self._rows.items()):
            file = _nifti(self._folder / SCANS, number)
            if file is None:
                if number not in MISSING_IN_THE_SET:
                    doubts.append(Doubt(Fault.EMPTY, str(self._file), f"patient {number:03d} has rows and no scan"))
                continue
            truth = truth_of_slices(np.stack(list(rows.values())))
            kinds = frozenset(kind for kind, here in truth.by_label.items() if here)
            mask = _nifti(self._folder / MASKS, number)
            mark = mark_of([file, *([mask] if mask else [])])
            entries.append(Entry(f"{number:03d}", f"{number:03d}", str(file), truth.any, kinds, mark=mark))
        if not entries:
            raise BadStudy(self._folder / SCANS, f"holds no scan that {self._file} names", Fault.EMPTY)
        return tuple(entries), (*doubts, *self._unnamed(), *self._denied())

    def _unnamed(self) -> list[Doubt]:
        scans = sorted(path for path in (self._folder / SCANS).glob("*.nii*") if path.name[:3].isdigit())
        silent = [scan for scan in scans if int(scan.name[:3]) not in self._rows]
        return [Doubt(Fault.LABEL_MISSING, str(scan), f"has no row in {self._file}") for scan in silent]

    def _denied(self) -> list[Doubt]:
        return [
            Doubt(Fault.LABEL_CONTRADICTION, str(self._file), f"patient {number:03d}, slice {nth}: none, and a kind")
            for number, rows in sorted(self._rows.items())
            for nth, row in sorted(rows.items())
            if row[0] == 0 and np.nanmax(row) == 1
        ]


def _nifti(folder: Path, number: int) -> Path | None:
    return next((file for end in ("nii", "nii.gz") if (file := folder / f"{number:03d}.{end}").is_file()), None)


def _whole(file: Path, line: int, text: str) -> int:
    try:
        return int(float(text))
    except ValueError:
        raise BadStudy(file, f"line {line}: {text!r} is no number", Fault.LABEL_MISSING) from None


def _labels(file: Path, line: int, row: dict[str, str]) -> NDArray[np.float32]:
    """(6,), NaN where nothing is said: of masses never."""
    labels = np.full(len(COLUMNS), np.nan, np.float32)
    none = yes_or_no(file, f"line {line}", row.get(NONE))
    if none is not None:
        labels[0] = float(not none)
    for column, label in LABEL_OF.items():
        here = yes_or_no(file, f"line {line}", row.get(column))
        if here is not None:
            at = COLUMNS.index(label)
            labels[at] = np.fmax(labels[at], float(here))
    return labels


def read_nifti(file: Path) -> _Volume:
    """A volume turned to slices from the feet upwards, rows to the back, columns to the patient's left.

    Raises:
        BadStudy: it is damaged, not three-dimensional, lies askew, or its spacing is not plausible.
    """
    try:
        image = nibabel.load(file)
        voxels = np.asarray(image.dataobj, np.float32)
        sizes_mm = tuple(float(size) for size in image.header.get_zooms()[:3])
        lies = io_orientation(image.affine)
    except Exception as problem:  # nibabel raises its own errors, those of zlib and of the disk
        raise BadStudy(file, f"cannot be read as NIfTI ({type(problem).__name__})") from problem
    if voxels.ndim != 3 or not np.isfinite(voxels).all():
        raise BadStudy(file, f"is no volume of finite numbers (shape {voxels.shape})")
    if np.isnan(lies).any() or lies[2, 0] != 2:
        raise BadStudy(file, "does not hold axial slices along its last axis", Fault.ORIENTATION)
    turned = apply_orientation(voxels, ornt_transform(lies, axcodes2ornt("LPS")))
    columns_mm, rows_mm = (sizes_mm[int(axis)] for axis in np.argsort(lies[:2, 0]))
    spacing_mm = (sizes_mm[2], rows_mm, columns_mm)
    _check_spacing(file, spacing_mm)
    return _Volume(np.ascontiguousarray(turned.transpose(2, 1, 0)), spacing_mm, bool(lies[2, 1] < 0))


def _check_spacing(file: Path, spacing_mm: tuple[float, float, float]) -> None:
    bounds = (PLAUSIBLE_GAP_MM, PLAUSIBLE_PIXEL_MM, PLAUSIBLE_PIXEL_MM)
    if not all(low <= size <= high for size, (low, high) in zip(spacing_mm, bounds, strict=True)):
        raise BadStudy(file, f"has voxels of {spacing_mm} mm (slices, rows, columns)", Fault.SPACING)


def named_masks(drawn: NDArray[np.bool_], by_slice: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bits of `drawn` (n, H, W): of the one kind that the slice's labels (n, 6) name, else UNNAMED_BIT."""
    masks = np.zeros(drawn.shape, np.uint8)
    for nth, row in enumerate(by_slice):
        kinds = np.flatnonzero(row[1:] == 1)
        bit = int(kinds[0]) if len(kinds) == 1 else UNNAMED_BIT
        masks[nth] = drawn[nth].astype(np.uint8) << bit
    return masks


def _against(file: Path, drawn: NDArray[np.bool_], by_slice: NDArray[np.float32]) -> tuple[Doubt, ...]:
    marked, said = drawn.any((1, 2)), by_slice[:, 0]
    told = []
    if ((said == 0) & marked).any():
        told.append(f"marks {int(((said == 0) & marked).sum())} slices that are labelled free of blood")
    if ((said == 1) & ~marked).any():
        told.append(f"marks nothing in {int(((said == 1) & ~marked).sum())} slices that are labelled")
    return tuple(Doubt(Fault.LABEL_CONTRADICTION, str(file), sentence) for sentence in told)


def _demographics(folder: Path) -> dict[int, Facts]:
    """Age and sex from `Patient_demographics.csv`, whose header has a line break in it; nothing where it is absent."""
    file = next((path for path in sorted(folder.glob("*emographics.csv"))), None)
    if file is None:
        return {}
    found = {}
    for row in read_table(file, ("patient number",)):
        if row["patient number"].isdigit():
            age = next((value for name, value in row.items() if name.startswith("age")), "")
            sex = SEXES.get(row.get("gender", "").lower())
            found[int(row["patient number"])] = Facts(_age(age), sex)
    return found


def _age(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
