"""What must hold before anything is trained: each finding names a file and a sentence, and a table says how bad it is.

Pure: studies come in one after the other, nothing of them is kept but digests and a few figures.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.splits import table_of
from training.data.study import COLUMNS, KINDS, BadStudy, Doubt, Entry, Fault, Study, StudySource


class Severity(StrEnum):
    """ERROR: not trained on before it is mended or allowed by name. WARNING: told, and trained on."""

    ERROR = "error"
    WARNING = "warning"


SEVERITY: dict[Fault, Severity] = {
    Fault.CORRUPT: Severity.ERROR,
    Fault.EMPTY: Severity.WARNING,  # a row without images: the rest can be trained on. A source without any raises.
    Fault.NOT_HU: Severity.ERROR,
    Fault.SPACING: Severity.ERROR,
    Fault.MIXED_SPACING: Severity.ERROR,
    Fault.ORIENTATION: Severity.ERROR,
    Fault.LABEL_MISSING: Severity.ERROR,
    Fault.LABEL_CONTRADICTION: Severity.ERROR,
    Fault.EMPTY_CLASS: Severity.ERROR,
    Fault.DUPLICATE: Severity.WARNING,
    Fault.LEAK: Severity.ERROR,
    Fault.NOT_HEAD: Severity.WARNING,
    Fault.PATIENT_UNKNOWN: Severity.WARNING,
}
HEAD_MM = (100.0, 400.0)  # the widest slice of a patient: a neonate's head to a head with shoulders
BODY_HU = -300


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, where, and how bad."""

    fault: Fault
    severity: Severity
    file: str
    sentence: str


@dataclass(frozen=True)
class Figures:
    """What was read, for the report. Lengths in mm, HU as (1st, 50th, 99th) percentile of all studies' own."""

    studies: int = 0
    unreadable: int = 0
    slices: int = 0
    patients: int = 0
    masks: int = 0
    slice_mm: Mapping[str, int] = field(default_factory=dict)
    pixel_mm: tuple[float, float] | None = None
    matrix: Mapping[str, int] = field(default_factory=dict)
    hu: tuple[float, float] | None = None
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """The result of a check. `passed`: no error that was not allowed."""

    source: str
    findings: tuple[Finding, ...]
    figures: Figures
    split: tuple[Mapping[str, int | str], ...]

    @property
    def passed(self) -> bool:
        """Whether training may begin."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def named(self, name: Callable[[str], str]) -> Report:
        """The same, places and sentences as `name` tells them."""
        told = [replace(one, file=name(one.file), sentence=name(one.sentence)) for one in self.findings]
        return replace(self, source=name(self.source), findings=tuple(told))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"passed": self.passed, **asdict(self)}


def check(
    source: StudySource,
    parts: Callable[[Sequence[Entry]], Mapping[str, Sequence[Entry]]],
    *,
    name: str,
    allowed: frozenset[Fault] = frozenset(),
    tell: Callable[[int, int], None] = lambda _done, _of: None,
) -> Report:
    """Read every study once and say what is wrong.

    `parts` splits the studies that can be read (splits.parts_of); faults in `allowed` are warnings instead of errors.

    Raises:
        BadStudy: there is nothing to check: no table, no study.
    """
    entries = source.entries()
    notes = _Notes(allowed)
    notes.doubts(source.doubts())
    readable = []
    for nth, entry in enumerate(entries, start=1):
        try:
            study = source.load(entry)
        except BadStudy as bad:
            notes.add(bad.fault, bad.file, bad.reason)
        else:
            readable.append(entry)
            notes.study(entry, study)
        tell(nth, len(entries))
    notes.classes(readable, name)
    cut = parts(readable)
    notes.parts(cut)
    notes.leaks(cut)
    notes.repeats({entry.uid for part in cut.values() for entry in part})
    figures = notes.figures(readable, len(entries) - len(readable))
    return Report(name, tuple(notes.findings), figures, tuple(table_of(cut)))


class _Notes:
    """What is kept of the studies that passed by."""

    def __init__(self, allowed: frozenset[Fault]) -> None:
        self._allowed = allowed
        self.findings: list[Finding] = []
        self._seen: dict[bytes, list[Entry]] = defaultdict(list)
        self._labels: dict[str, Counter[str]] = {column.value: Counter() for column in COLUMNS}
        self._sizes: list[tuple[float, float, str, float, float, int, bool]] = []

    def add(self, fault: Fault, file: str, sentence: str, *, mild: bool = False) -> None:
        severity = Severity.WARNING if mild or fault in self._allowed else SEVERITY[fault]
        self.findings.append(Finding(fault, severity, file, sentence))

    def doubts(self, doubts: Iterable[Doubt]) -> None:
        for doubt in doubts:
            self.add(doubt.fault, doubt.file, doubt.sentence, mild=doubt.mild)

    def study(self, entry: Entry, study: Study) -> None:
        self.doubts(study.doubts)
        for digest in {*digests(study.hu)}:
            self._seen[digest].append(entry)
        widest_mm = width_mm(study)
        if not HEAD_MM[0] <= widest_mm <= HEAD_MM[1]:
            self.add(
                Fault.NOT_HEAD, entry.place, f"the patient is {widest_mm:.0f} mm wide: no head, or a wrong spacing"
            )
        self._truth(entry, study)
        low, high = np.percentile(study.hu[len(study.hu) // 2], (1, 99))
        matrix = "×".join(map(str, study.hu.shape[1:]))
        masks = study.truth.masks is not None
        self._sizes.append((study.spacing_mm[0], study.spacing_mm[1], matrix, low, high, len(study.hu), masks))

    def _truth(self, entry: Entry, study: Study) -> None:
        """Label and mask of one study must not say the opposite; what they say is counted."""
        truth = study.truth
        said = {"any": truth.any, **{kind.value: truth.by_label.get(kind.value) for kind in KINDS}}
        for name, here in said.items():
            self._labels[name][{None: "not said", True: "present", False: "absent"}[here]] += 1
        if truth.any is False and any(truth.by_label.values()):
            self.add(Fault.LABEL_CONTRADICTION, entry.place, "is labelled clean, and a kind is said to be there")
        if truth.masks is not None and truth.any is False and truth.masks.any():
            self.add(Fault.LABEL_CONTRADICTION, entry.place, "is labelled clean, and its mask is not empty")

    def classes(self, entries: Sequence[Entry], name: str) -> None:
        """Both answers must be there where there is any, and every kind that is said of some study."""
        said = Counter(entry.any for entry in entries)
        if not said[True] and not said[False]:
            return self.add(Fault.EMPTY_CLASS, name, "no study has a label: good for pre-training only", mild=True)
        for here, told in ((True, "with"), (False, "without")):
            if not said[here]:
                self.add(Fault.EMPTY_CLASS, name, f"there is no study {told} a bleed")
        for kind in KINDS:
            counts = self._labels[kind.value]
            if counts["absent"] and not counts["present"]:
                self.add(Fault.EMPTY_CLASS, name, f"{kind.value} is asked of every study and never there")
        return None

    def parts(self, parts: Mapping[str, Sequence[Entry]]) -> None:
        """A part without one of the answers measures nothing."""
        every = {entry.any for entries in parts.values() for entry in entries}
        for name, entries in parts.items():
            for here, told in ((True, "with"), (False, "without")):
                if len(parts) > 1 and here in every and not any(entry.any is here for entry in entries):
                    self.add(Fault.EMPTY_CLASS, name, f"this part of the split has no study {told} a bleed", mild=True)

    def leaks(self, parts: Mapping[str, Sequence[Entry]]) -> None:
        """One patient, or one picture, in two parts."""
        where: dict[str, dict[str, Entry]] = defaultdict(dict)
        part_of = {entry.uid: name for name, entries in parts.items() for entry in entries}
        for name, entries in parts.items():
            for entry in entries:
                where[entry.patient].setdefault(name, entry)
        for found in where.values():
            if len(found) > 1:
                (first, one), (second, other) = list(found.items())[:2]
                told = f"is in {second}, another study of the patient ({one.place}) in {first}"
                self.add(Fault.LEAK, other.place, told)
        self._shared_pictures(part_of)

    def _shared_pictures(self, part_of: Mapping[str, str]) -> None:
        told = set()
        for holders in self._seen.values():
            for other in holders[1:]:
                one = holders[0]
                apart = part_of.get(one.uid) != part_of.get(other.uid)
                if apart and one.uid in part_of and other.uid in part_of and (one.uid, other.uid) not in told:
                    told.add((one.uid, other.uid))
                    sentence = f"shares pictures with {one.place}, which is in {part_of[one.uid]}"
                    self.add(Fault.LEAK, other.place, f"is in {part_of[other.uid]} and {sentence}")

    def repeats(self, known: set[str]) -> None:
        """Studies that share pictures, wherever they are."""
        shared = Counter(
            (holders[0], other) for holders in self._seen.values() for other in holders[1:] if other.uid in known
        )
        for (one, other), count in shared.items():
            self.add(Fault.DUPLICATE, other.place, f"{count} slices are pixel for pixel those of {one.place}")

    def figures(self, entries: Sequence[Entry], unreadable: int) -> Figures:
        if not self._sizes:
            return Figures(unreadable=unreadable)
        gaps, pixels, matrices, lows, highs, slices, masks = zip(*self._sizes, strict=True)
        return Figures(
            studies=len(entries),
            unreadable=unreadable,
            slices=sum(slices),
            patients=len({entry.patient for entry in entries}),
            masks=sum(masks),
            slice_mm=dict(sorted(Counter(f"{gap:.1f}" for gap in gaps).items(), key=lambda item: float(item[0]))),
            pixel_mm=(round(min(pixels), 3), round(max(pixels), 3)),
            matrix=dict(Counter(matrices)),
            hu=(float(min(lows)), float(max(highs))),
            labels={name: dict(counts) for name, counts in self._labels.items()},
        )


def digests(hu: NDArray[np.int16]) -> list[bytes]:
    """A digest of each slice that is not all of one value: the same picture under another name is found by it."""
    return [
        hashlib.blake2b(
            np.ascontiguousarray(image).tobytes(), digest_size=16, salt=str(image.shape).encode()[:16]
        ).digest()
        for image in hu
        if image.min() != image.max()
    ]


def width_mm(study: Study) -> float:
    """The widest extent from left to right of all slices; a table or head holder is denser than air and counts too."""
    columns = (study.hu > BODY_HU).mean(1) > 0.02
    return float(columns.sum(1).max()) * study.spacing_mm[2]
