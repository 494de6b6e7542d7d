"""CQ500: `reads.csv` with three readers, `CQ500CT<n> CQ500CT<n>/Unknown Study/<series>/*.dcm`, also inside `qct<nn>/`.

What two of the three readers say holds. Mass effect and midline shift are no masses: nothing is said of those.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from contracts.findings import Label
from training.data.dicom_in import files_under, mark_of, read_headers, read_study
from training.data.study import BadStudy, Doubt, Entry, Fault, Study, Truth
from training.data.table_in import read_table, yes_or_no

TABLE = "reads.csv"
READERS = ("r1", "r2", "r3")
MAJORITY = 2
ANY_COLUMN = "ich"
COLUMNS_OF = {  # a reader who says one of the columns says the label
    Label.INTRAPARENCHYMAL: ("iph",),
    Label.SUBDURAL_EPIDURAL: ("sdh", "edh"),
    Label.SUBARACHNOID: ("sah",),
    Label.INTRAVENTRICULAR: ("ivh",),
}
NAMED = re.compile(r"^CQ500-?CT-?(\d+)\b", re.IGNORECASE)  # CQ500-CT-12 in the table, "CQ500CT12 CQ500CT12" on the disk


class Cq500Source:
    """`folder` holds the table and the cases; `table` names another table."""

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self._folder = folder
        self._file = table or folder / TABLE

    @property
    def version(self) -> str:
        """Raise the number when this loader reads otherwise."""
        return "cq500-1"

    def entries(self) -> Sequence[Entry]:
        """In order of the case's number. Reads the table and lists folders."""
        return self._found[0]

    def doubts(self) -> Sequence[Doubt]:
        """Cases without a row and rows without a case."""
        return self._found[1]

    def load(self, entry: Entry) -> Study:
        """The plain series of routine thickness (geometry.chosen_series)."""
        headers, doubts = read_headers(files_under(Path(entry.place)))
        if doubts:
            raise BadStudy(doubts[0].file, doubts[0].sentence, doubts[0].fault)
        truth = self._truths.get(_number_of(entry.uid), Truth())
        return read_study(entry, headers, lambda _stack: truth, "cq500")

    @cached_property
    def _truths(self) -> dict[int, Truth]:
        needed = ("name", *(f"{reader}:{ANY_COLUMN}" for reader in READERS))
        return {_number_of(row["name"], self._file): _truth(self._file, row) for row in read_table(self._file, needed)}

    @cached_property
    def _found(self) -> tuple[tuple[Entry, ...], tuple[Doubt, ...]]:
        cases = _cases(self._folder)
        if not cases:
            raise BadStudy(self._folder, "holds no folder CQ500CT<n>", Fault.EMPTY)
        entries = tuple(_entry(number, cases[number], self._truths.get(number)) for number in sorted(cases))
        unlabelled = [
            Doubt(Fault.LABEL_MISSING, entry.place, f"has no row, or no majority, in {self._file}")
            for entry in entries
            if entry.any is None
        ]
        absent = sorted(set(self._truths) - set(cases))
        doubts = [Doubt(Fault.EMPTY, str(self._file), f"CQ500-CT-{number} has no folder") for number in absent]
        return entries, (*unlabelled, *doubts)


def _cases(folder: Path) -> dict[int, Path]:
    """Folders by case number, at the top or one below (the archives unpack to qct<nn>/)."""
    if not folder.is_dir():
        raise BadStudy(folder, "there is no such folder", Fault.EMPTY)
    found = (path for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern)) if path.is_dir())
    return {int(match[1]): path for path in found if (match := NAMED.match(path.name))}


def _number_of(name: str, file: Path | str = TABLE) -> int:
    match = NAMED.match(name)
    if match is None:
        raise BadStudy(file, f"{name!r} is not CQ500-CT-<n>", Fault.LABEL_MISSING)
    return int(match[1])


def _truth(file: Path, row: dict[str, str]) -> Truth:
    by_label = {label.value: _majority(file, row, columns) for label, columns in COLUMNS_OF.items()}
    said = {name: here for name, here in by_label.items() if here is not None}
    return Truth(any=_majority(file, row, (ANY_COLUMN,)), by_label=said)


def _majority(file: Path, row: dict[str, str], columns: Sequence[str]) -> bool | None:
    votes = []
    for reader in READERS:
        told = [yes_or_no(file, row["name"], row.get(f"{reader}:{column}")) for column in columns]
        votes.append(None if None in told else any(told))
    return next((here for here in (True, False) if votes.count(here) >= MAJORITY), None)


def _entry(number: int, place: Path, truth: Truth | None) -> Entry:
    uid = f"CQ500-CT-{number}"
    kinds = frozenset(kind for kind, here in truth.by_label.items() if here) if truth else frozenset()
    return Entry(uid, uid, str(place), truth.any if truth else None, kinds, mark=mark_of(files_under(place)))
