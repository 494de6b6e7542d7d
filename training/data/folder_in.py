"""A plain folder of DICOM at any depth, with a CSV `study_instance_uid,label` beside it (or none, to learn unlabelled).

Further columns are read where they are there: the kinds by name (`intraparenchymal` …, 0 or 1), `patient` (instead of
PatientID) and `split` (the part of a split that somebody else made; it is checked for leaks like our own).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from training.data.dicom_in import files_under, mark_of, pseudonym, read_headers, read_study
from training.data.geometry import Header
from training.data.naming import hashed
from training.data.study import KINDS, BadStudy, Doubt, Entry, Fault, Study, Truth
from training.data.table_in import read_table, yes_or_no

UID, LABEL, PATIENT, SPLIT = "study_instance_uid", "label", "patient", "split"


@dataclass(frozen=True)
class Row:
    """What the table says of one study."""

    any: bool | None
    by_label: dict[str, bool]
    patient: str = ""
    part: str | None = None


@dataclass(frozen=True)
class _Found:
    entries: tuple[Entry, ...]
    headers: dict[str, list[Header]]
    rows: dict[str, Row]
    doubts: tuple[Doubt, ...]


class FolderSource:
    """Studies of a folder. `labels`: the CSV, or None."""

    def __init__(self, folder: Path, labels: Path | None = None) -> None:
        self._folder = folder
        self._labels = labels

    @property
    def version(self) -> str:
        """Raise the number when this loader reads otherwise."""
        return "folder-1"

    def entries(self) -> Sequence[Entry]:
        """In order of StudyInstanceUID. Reads every header once."""
        return self._found.entries

    def doubts(self) -> Sequence[Doubt]:
        """Files that are no DICOM, studies without a row, rows without a study, rows that contradict."""
        return self._found.doubts

    def load(self, entry: Entry) -> Study:
        """The study's chosen series (geometry.chosen_series)."""
        row = self._found.rows.get(entry.uid)
        truth = Truth(any=entry.any, by_label=row.by_label if row else {})
        return read_study(entry, self._found.headers[entry.uid], lambda _stack: truth, "folder")

    @cached_property
    def _found(self) -> _Found:
        rows, table_doubts = read_labels(self._labels) if self._labels else ({}, [])
        headers, file_doubts = read_headers(files_under(self._folder))
        by_study: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            if header.is_slice:
                by_study[header.study_uid].append(header)
        if not by_study:
            raise BadStudy(self._folder, "holds no CT slice", Fault.EMPTY)
        places = _places(by_study)
        entries = tuple(_entry(uid, by_study[uid], rows.get(uid), places[uid]) for uid in sorted(by_study))
        unlabelled = [entry for entry in entries if self._labels and entry.any is None]
        doubts = [*table_doubts, *file_doubts, *map(self._no_label, unlabelled), *self._no_images(rows, by_study)]
        return _Found(entries, dict(by_study), rows, (*doubts, *_no_patient(entries, by_study, rows)))

    def _no_label(self, entry: Entry) -> Doubt:
        return Doubt(Fault.LABEL_MISSING, entry.place, f"study {hashed(entry.uid)} has no label in {self._labels}")

    def _no_images(self, rows: dict[str, Row], by_study: dict[str, list[Header]]) -> list[Doubt]:
        return [
            Doubt(Fault.EMPTY, str(self._labels), f"study {hashed(uid)} has a label and no image under {self._folder}")
            for uid in rows
            if uid not in by_study
        ]


def _places(by_study: dict[str, list[Header]]) -> dict[str, str]:
    """A study's folder where it has it for itself, else its first file."""
    folders = {uid: {Path(header.file).parent for header in headers} for uid, headers in by_study.items()}
    holds = Counter(folder for found in folders.values() for folder in found)
    alone = {uid: len(found) == 1 and holds[next(iter(found))] == 1 for uid, found in folders.items()}
    return {uid: str(next(iter(folders[uid]))) if alone[uid] else headers[0].file for uid, headers in by_study.items()}


def _entry(uid: str, headers: Sequence[Header], row: Row | None, place: str) -> Entry:
    files = [Path(header.file) for header in headers]
    said = pseudonym("table", row.patient) if row else ""
    return Entry(
        uid=uid,
        patient=said or headers[0].patient or f"study {uid}",
        place=place,
        any=row.any if row else None,
        kinds=frozenset(kind for kind, here in row.by_label.items() if here) if row else frozenset(),
        part=row.part if row else None,
        mark=mark_of(files),
    )


def _no_patient(entries: Sequence[Entry], headers: dict[str, list[Header]], rows: dict[str, Row]) -> list[Doubt]:
    """A study without a patient counts as a patient of its own; that nobody is on both sides is then not known."""
    nameless = [e for e in entries if not headers[e.uid][0].patient and not (e.uid in rows and rows[e.uid].patient)]
    sentence = "says no PatientID: taken for a patient of its own"
    return [Doubt(Fault.PATIENT_UNKNOWN, headers[entry.uid][0].file, sentence) for entry in nameless]


def read_labels(file: Path) -> tuple[dict[str, Row], list[Doubt]]:
    """Rows by StudyInstanceUID; of rows that contradict each other none counts.

    Raises:
        BadStudy: the table cannot be read, or a cell is neither 0 nor 1.
    """
    rows: dict[str, Row] = {}
    against: set[str] = set()
    for line, cells in enumerate(read_table(file, (UID, LABEL)), start=2):
        uid, row = cells.get(UID, ""), _row(file, line, cells)
        if not uid:
            raise BadStudy(file, f"line {line} has no {UID}", Fault.LABEL_MISSING)
        if rows.setdefault(uid, row) != row:
            against.add(uid)
    doubts = [
        Doubt(Fault.LABEL_CONTRADICTION, str(file), f"two rows of study {hashed(uid)} differ")
        for uid in sorted(against)
    ]
    return {uid: row for uid, row in rows.items() if uid not in against}, doubts


def _row(file: Path, line: int, cells: dict[str, str]) -> Row:
    told = f"line {line}"
    by_label = {kind.value: yes_or_no(file, told, cells.get(kind.value)) for kind in KINDS}
    said = {kind: here for kind, here in by_label.items() if here is not None}
    label = yes_or_no(file, told, cells.get(LABEL))
    if label is False and any(said.values()):
        raise BadStudy(file, f"{told}: label is 0 and a kind is 1", Fault.LABEL_CONTRADICTION)
    return Row(label, said, cells.get(PATIENT, ""), cells.get(SPLIT) or None)
