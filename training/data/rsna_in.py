"""RSNA Intracranial Hemorrhage Detection 2019: `stage_2_train.csv` (`ID,Label`) and `stage_2_train/ID_<hex>.dcm`.

Six rows an image; some rows stand there twice; images lie flat and are put together by StudyInstanceUID. Epidural and
subdural are one label of ours. Nothing is said of masses, and no voxel is marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.findings import Label
from training.data.dicom_in import files_under, mark_of, read_headers, read_study
from training.data.geometry import Header, Stack
from training.data.study import COLUMNS, BadStudy, Doubt, Entry, Fault, Study, Truth
from training.data.table_in import iterate_table, yes_or_no

TABLE, IMAGES = "stage_2_train.csv", "stage_2_train"
LABEL_OF = {
    "any": Label.ANY,
    "epidural": Label.SUBDURAL_EPIDURAL,
    "subdural": Label.SUBDURAL_EPIDURAL,
    "intraparenchymal": Label.INTRAPARENCHYMAL,
    "intraventricular": Label.INTRAVENTRICULAR,
    "subarachnoid": Label.SUBARACHNOID,
}
SUBTYPES = tuple(LABEL_OF)


@dataclass
class _Table:
    """said and here: bit n is SUBTYPES[n], by image."""

    said: dict[str, int] = field(default_factory=dict)
    here: dict[str, int] = field(default_factory=dict)
    repeated: int = 0
    against: set[str] = field(default_factory=set)

    def add(self, image: str, bit: int, here: bool) -> None:  # noqa: FBT001  # a cell of the table
        said, before = self.said.get(image, 0), bool(self.here.get(image, 0) & bit)
        if said & bit:
            self.repeated += 1
            if before != here:
                self.against.add(image)
        self.said[image] = said | bit
        self.here[image] = self.here.get(image, 0) | (bit if here else 0)

    def labels(self, image: str) -> NDArray[np.float32]:
        """(6,), NaN where nothing is said."""
        row = np.full(len(COLUMNS), np.nan, np.float32)
        for nth, subtype in enumerate(SUBTYPES):
            if image not in self.against and self.said.get(image, 0) >> nth & 1:
                column = COLUMNS.index(LABEL_OF[subtype])
                row[column] = np.fmax(row[column], float(self.here[image] >> nth & 1))
        return row


class RsnaSource:
    """`folder` holds the table and the images' folder; `table` names another table."""

    def __init__(self, folder: Path, table: Path | None = None) -> None:
        self._folder = folder
        self._file = table or folder / TABLE

    @property
    def version(self) -> str:
        """Raise the number when this loader reads otherwise."""
        return "rsna-1"

    def entries(self) -> Sequence[Entry]:
        """In order of StudyInstanceUID. Reads every header once: minutes for the whole set."""
        return self._found[0]

    def doubts(self) -> Sequence[Doubt]:
        """Repeated and contradicting rows, images without a row."""
        return self._found[2]

    def load(self, entry: Entry) -> Study:
        """A study of slices with labels by slice."""
        return read_study(entry, self._found[1][entry.uid], self._truth, "rsna")

    def _truth(self, stack: Stack) -> Truth:
        by_slice = np.stack([self._table.labels(Path(header.file).stem) for header in stack.headers])
        return truth_of_slices(by_slice)

    @cached_property
    def _table(self) -> _Table:
        return read_rsna_table(self._file)

    @cached_property
    def _found(self) -> tuple[tuple[Entry, ...], dict[str, list[Header]], tuple[Doubt, ...]]:
        table = self._table
        headers, doubts = read_headers(files_under(self._folder / IMAGES))
        by_study: dict[str, list[Header]] = defaultdict(list)
        for header in headers:
            by_study[header.study_uid].append(header)
        if not by_study:
            raise BadStudy(self._folder / IMAGES, "holds no image", Fault.EMPTY)
        entries = tuple(self._entry(uid, by_study[uid]) for uid in sorted(by_study))
        return entries, dict(by_study), (*doubts, *self._table_doubts(table, headers))

    def _entry(self, uid: str, headers: Sequence[Header]) -> Entry:
        images = [Path(header.file) for header in headers]
        truth = truth_of_slices(np.stack([self._table.labels(image.stem) for image in images]))
        kinds = frozenset(kind for kind, here in truth.by_label.items() if here)
        patient = headers[0].patient or f"study {uid}"
        return Entry(uid, patient, headers[0].file, truth.any, kinds, mark=mark_of(images))

    def _table_doubts(self, table: _Table, headers: Sequence[Header]) -> list[Doubt]:
        told, file = [], str(self._file)
        if table.repeated:
            told.append(Doubt(Fault.DUPLICATE, file, f"{table.repeated} rows stand there twice; dropped", mild=True))
        told += [Doubt(Fault.LABEL_CONTRADICTION, file, f"rows of {image} differ") for image in sorted(table.against)]
        told += [
            Doubt(Fault.LABEL_CONTRADICTION, file, f"{image}: any is 0 and a kind is 1") for image in _any_denied(table)
        ]
        silent = [header.file for header in headers if Path(header.file).stem not in table.said]
        return told + [Doubt(Fault.LABEL_MISSING, image, f"has no row in {self._file}") for image in silent]


def _any_denied(table: _Table) -> list[str]:
    bit = 1 << SUBTYPES.index("any")
    return [image for image, here in table.here.items() if here & ~bit and table.said[image] & bit and not here & bit]


def read_rsna_table(file: Path) -> _Table:
    """The labels of every image.

    Raises:
        BadStudy: the table cannot be read, or a row is not `ID_<hex>_<subtype>,0|1`.
    """
    table = _Table()
    for line, cells in enumerate(iterate_table(file, ("id", "label")), start=2):
        image, _, subtype = cells["id"].rpartition("_")
        here = yes_or_no(file, f"line {line}", cells.get("label"))
        if subtype not in LABEL_OF or here is None:
            raise BadStudy(file, f"line {line} is not ID_<hex>_<subtype>,0 or 1", Fault.LABEL_MISSING)
        table.add(image, 1 << SUBTYPES.index(subtype), here)
    if not table.said:
        raise BadStudy(file, "has no row", Fault.EMPTY)
    return table


def truth_of_slices(by_slice: NDArray[np.float32]) -> Truth:
    """The study's truth from its slices: present where one slice says so, absent where all do."""
    by_label = {}
    for column, label in enumerate(COLUMNS):
        told = by_slice[:, column]
        if (told == 1).any() or not np.isnan(told).any():
            by_label[label.value] = bool((told == 1).any())
    said = by_label.pop(Label.ANY.value, None)
    return Truth(any=said, by_label=by_label, by_slice=by_slice)
