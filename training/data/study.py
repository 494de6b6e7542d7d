"""The seam between data and everything that learns from it: what a study is and what hands studies out. Pure.

A loader (`*_in`) knows one layout; training, evaluation and the checks know only `StudySource`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.errors import TriageError
from contracts.findings import Label
from contracts.tensors import HEAD_CT_LESION

COLUMNS: tuple[Label, ...] = HEAD_CT_LESION.labels  # of Truth.by_slice: any, then the five kinds
KINDS: tuple[Label, ...] = COLUMNS[1:]  # bit c of a mask is KINDS[c], as in training.phantom.lesions.CHANNELS
UNNAMED_BIT = 7  # of a mask: something is here, the source does not say of which kind
GRAZED = 0.5  # a label: the slice only touches the lesion; neither learned from nor asked for


class Fault(StrEnum):
    """What can be wrong with data. The checks' table (training.data.checks) says how bad each is."""

    CORRUPT = "corrupt"  # unreadable, cut short, sizes that do not fit
    EMPTY = "empty"  # no image, no study, no row
    NOT_HU = "not_hu"  # no rescale, windowed, 8 bit, or numbers that are no CT's
    SPACING = "spacing"  # none, not positive, not plausible
    MIXED_SPACING = "mixed_spacing"  # gaps or several thicknesses inside one series
    ORIENTATION = "orientation"  # not axial, or mixed inside one series
    LABEL_MISSING = "label_missing"
    LABEL_CONTRADICTION = "label_contradiction"  # two rows, or label and mask, say the opposite
    EMPTY_CLASS = "empty_class"
    DUPLICATE = "duplicate"
    LEAK = "leak"  # one patient, or one picture, on both sides of a split
    NOT_HEAD = "not_head"  # not a CT of a head
    PATIENT_UNKNOWN = "patient_unknown"


class BadStudy(TriageError):
    """A study that cannot be used. `file`: the file or folder at fault; `reason`: a sentence without patient data."""

    def __init__(self, file: object, reason: str, fault: Fault = Fault.CORRUPT) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = str(file)
        self.reason = reason
        self.fault = fault


class NotHounsfield(BadStudy):
    """Pixels that are not HU: nothing can be learned from them that holds on another scanner."""

    def __init__(self, file: object, reason: str) -> None:
        super().__init__(file, reason, Fault.NOT_HU)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something seen in the data and let pass by the loader; how bad it is, training.data.checks says."""

    fault: Fault
    file: str
    sentence: str
    mild: bool = False  # mended or left out by the loader, or harmless: never a reason to stop


@dataclass(frozen=True, slots=True)
class Facts:
    """What subgroups are made of. None where the source does not say."""

    age_years: float | None = None
    sex: str | None = None  # F, M or O, as PatientSex (PS3.3 C.7.1.1)
    scanner: str | None = None  # manufacturer and model
    slice_mm: float | None = None  # SliceThickness
    kernel: str | None = None  # ConvolutionKernel


@dataclass(frozen=True)
class Truth:
    """What is known. None, a missing key and NaN all mean: not said, which never means absent."""

    any: bool | None = None  # study level
    by_label: Mapping[str, bool] = field(default_factory=dict)  # study level; keys are values of KINDS
    by_slice: NDArray[np.float32] | None = None  # (n, 6), order of COLUMNS: 0, 1, GRAZED, NaN
    masks: NDArray[np.uint8] | None = None  # (n, H, W), bit c is KINDS[c]; UNNAMED_BIT: of no said kind


@dataclass(frozen=True, eq=False)
class Study:
    """One series of axial slices, from the feet upwards; columns grow to the patient's left, rows to the back."""

    uid: str
    patient: str  # pseudonymous; only for splitting, never written to a file
    hu: NDArray[np.int16]  # (n, H, W)
    spacing_mm: tuple[float, float, float]  # between slices, between rows, between columns
    z_mm: NDArray[np.float32]  # (n,), growing
    truth: Truth
    facts: Facts
    source: str  # which loader
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A study that a source has, before a pixel is read."""

    uid: str
    patient: str
    place: str  # file, folder or seed, named in reports
    any: bool | None = None
    kinds: frozenset[str] = frozenset()  # said to be present
    part: str | None = None  # of the split, where the source comes with one
    mark: str = ""  # changes with the files (names, sizes, times): part of the cache's key

    @property
    def stratum(self) -> str:
        """What splits keep in proportion: clean, not said, or its kinds."""
        return {None: "not said", False: "clean", True: "+".join(sorted(self.kinds)) or "any"}[self.any]


class StudySource(Protocol):
    """What every loader and the phantom is."""

    @property
    def version(self) -> str:
        """Changes whenever the same entry would load as something else; part of the cache's key."""
        ...

    def entries(self) -> Sequence[Entry]:
        """All studies in a stable order. Cheap: reads tables and headers, no pixels.

        Raises:
            BadStudy: a table is missing or cannot be read.
        """
        ...

    def doubts(self) -> Sequence[Doubt]:
        """What `entries` stumbled over and left out or let pass."""
        ...

    def load(self, entry: Entry) -> Study:
        """The study with its pixels.

        Raises:
            BadStudy: names the file.
        """
        ...
