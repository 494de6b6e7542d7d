"""One tier: every study of a source through every reader. Streams: of a study, a few numbers and one picture stay.

S is synthetic and held out, R real without labels, L real and labelled. They are never averaged: each is an Outcome of
its own from here to the last line of the report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.study import BadStudy, Entry, Study
from training.evaluation.judging import Case, Judged, case_of, judged, without_voxels
from training.evaluation.reading import Reader, Reading
from training.evaluation.robustness import Shift
from training.evaluation.scope import refusal

Tell = Callable[[int, int], None]


class Source(Protocol):
    """A StudySource, as far as it is needed here."""

    def entries(self) -> Sequence[Entry]:
        """All studies."""
        ...

    def load(self, entry: Entry) -> Study:
        """With pixels; raises BadStudy."""
        ...


@dataclass(frozen=True)
class Refused:
    """An abstention: a study nobody scored. `unreadable`: the loader's word, otherwise the service's limits."""

    place: str
    reason: str
    unreadable: bool


@dataclass(frozen=True, eq=False)
class Shown:
    """One slice for the report. hu, truth, guess (H, W)."""

    uid: str
    hu: NDArray[np.int16]
    truth: NDArray[np.bool_] | None
    guess: NDArray[np.bool_]
    probability: float
    sick: bool | None
    kinds: tuple[str, ...]
    spacing_mm: tuple[float, float]


@dataclass(eq=False)
class Outcome:
    """What came of a tier. judged: by reader, one entry a study in the same order; shifted: by shift, the network's."""

    judged: dict[str, list[Judged]] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    shifted: dict[str, list[Judged]] = field(default_factory=dict)
    shown: list[Shown] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """How much is asked of each study. The first reader is the network; `few`: readers too slow for every study."""

    readers: Sequence[Reader]
    few: Sequence[Reader] = ()
    few_studies: int = 0
    shifts: Sequence[Shift] = ()
    shifted_studies: int = 0
    tags: Callable[[Entry], Mapping[str, str]] = lambda _entry: {}
    pictures: bool = False


def evaluate(source: Source, plan: Plan, tell: Tell = lambda _done, _of: None) -> Outcome:
    """Every study once, in the source's order."""
    outcome, entries = Outcome(), source.entries()
    for nth, entry in enumerate(entries):
        study = _loaded(source, entry, outcome)
        if study is not None:
            _look(study, entry, plan, outcome)
        tell(nth + 1, len(entries))
    return outcome


def _loaded(source: Source, entry: Entry, outcome: Outcome) -> Study | None:
    try:
        study = source.load(entry)
    except BadStudy as bad:
        outcome.refused.append(Refused(bad.file, bad.reason, unreadable=True))
        return None
    reason = refusal(study)
    if reason is not None:
        outcome.refused.append(Refused(entry.place, reason, unreadable=False))
        return None
    return study


def _look(study: Study, entry: Entry, plan: Plan, outcome: Outcome) -> None:
    tags = plan.tags(entry)
    case = case_of(study, tags)
    light = without_voxels(case)
    network = plan.readers[0]
    readings = {reader.name: reader.read(study) for reader in plan.readers}
    if readings[network.name].refused.all():
        outcome.refused.append(Refused(entry.place, "no slice shows a brain", unreadable=False))
        return
    for reader in plan.readers:
        reading = readings[reader.name]
        outcome.judged.setdefault(reader.name, []).append(_kept(case, light, study, reading, reader))
        if reader is network and plan.pictures:
            outcome.shown.append(picture_of(study, case, reading))
    for reader in plan.few:
        done = outcome.judged.setdefault(reader.name, [])
        if len(done) < plan.few_studies:
            done.append(_kept(case, light, study, reader.read(study), reader))
    if len(outcome.judged[network.name]) <= plan.shifted_studies:
        _shift(study, plan, outcome, tags)


def _kept(case: Case, light: Case, study: Study, reading: Reading, reader: Reader) -> Judged:
    return replace(judged(case, study, reading, reader.thresholds), case=light)


def _shift(study: Study, plan: Plan, outcome: Outcome, tags: Mapping[str, str]) -> None:
    for shift in plan.shifts:
        worse = shift.change(study)
        case = case_of(worse, tags)
        reader = plan.readers[0]
        told = _kept(case, without_voxels(case), worse, reader.read(worse), reader)
        outcome.shifted.setdefault(shift.name, []).append(told)


def picture_of(study: Study, case: Case, reading: Reading) -> Shown:
    """The slice with most lesion where there is one, else the one that the network takes for the worst."""
    score = reading.measures.probabilities[:, 0]
    nth = int(np.argmax(score))
    masks = study.truth.masks
    if masks is not None and masks.any():
        nth = int(np.argmax((masks > 0).sum((1, 2))))
    return Shown(
        uid=study.uid,
        hu=np.array(study.hu[nth]),
        truth=None if masks is None else masks[nth] > 0,
        guess=reading.marks[nth] > 0,
        probability=float(score[nth]),
        sick=case.sick,
        kinds=case.kinds,
        spacing_mm=(study.spacing_mm[1], study.spacing_mm[2]),
    )
