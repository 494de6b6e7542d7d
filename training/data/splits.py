"""Splits by patient, in proportion of what is seen, the same for the same seed. Pure."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.model_selection import GroupShuffleSplit, StratifiedGroupKFold

from training.data.study import Entry

SHARES: Mapping[str, float] = {"train": 0.7, "validation": 0.15, "test": 0.15}
REST = "other"  # strata with too few patients to be kept in proportion


def split(entries: Sequence[Entry], seed: int, shares: Mapping[str, float] = SHARES) -> dict[str, list[Entry]]:
    """Entries by part. A patient is in one part only; every part holds one patient at least.

    The shares of patients are met as nearly as whole folds allow: a share of 0.15 is one fold of seven. What a source
    says of its own split (Entry.part) is not looked at. Order and patients' keys do not matter, only the studies do.

    Raises:
        ValueError: shares do not sum to one, or there are fewer patients than parts.
    """
    if abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) <= 0:
        raise ValueError(f"shares must be positive and sum to one: {dict(shares)}")
    rest = sorted(entries, key=lambda entry: (entry.uid, entry.place))
    if len({entry.patient for entry in rest}) < len(shares):
        raise ValueError(f"{len({e.patient for e in rest})} patients cannot be split into {len(shares)} parts")
    parts: dict[str, list[Entry]] = {}
    left = 1.0
    for nth, (name, share) in enumerate(sorted(shares.items(), key=lambda item: (item[1], item[0]))):
        wanted, parts_left = share / left, len(shares) - nth
        parts[name], rest = (rest, []) if parts_left == 1 else _cut(rest, wanted, seed + nth, parts_left)
        left -= share
    return {name: parts[name] for name in shares}


def _cut(entries: list[Entry], share: float, seed: int, parts: int) -> tuple[list[Entry], list[Entry]]:
    """One part of about this share, and the rest, which keeps a patient for each part still to come."""
    groups = _groups(entries)
    patients = len(set(groups))
    folds = min(max(2, round(1 / share)), patients)
    strata = _strata(entries, folds)
    if len(set(strata)) > 1 and patients - patients // folds >= parts - 1:
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    else:
        splitter = GroupShuffleSplit(1, test_size=max(1, int(share * patients)), random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a stratum smaller than the folds: _strata has merged what it can
        rest, cut = next(iter(splitter.split(np.zeros(len(entries)), strata, groups)))
    return [entries[at] for at in cut], [entries[at] for at in rest]


def _groups(entries: Sequence[Entry]) -> list[str]:
    """The first study's place in the order names the patient, so that a pseudonym's value decides nothing."""
    first: dict[str, str] = {}
    return [first.setdefault(entry.patient, entry.uid) for entry in entries]


def _strata(entries: Sequence[Entry], folds: int) -> list[str]:
    """Each entry's stratum; those of fewer patients than folds go together, bleeding and clean apart."""
    patients: dict[str, set[str]] = {}
    for entry in entries:
        patients.setdefault(entry.stratum, set()).add(entry.patient)
    told = [entry.stratum if len(patients[entry.stratum]) >= folds else f"{REST} {entry.any}" for entry in entries]
    counts = Counter(told)
    return [name if counts[name] >= folds else REST for name in told]


def parts_of(
    entries: Sequence[Entry], seed: int, shares: Mapping[str, float] = SHARES
) -> Mapping[str, Sequence[Entry]]:
    """The source's own split where it comes with one, else ours; one part where there are too few patients for it."""
    if any(entry.part for entry in entries):
        parts: dict[str, list[Entry]] = {}
        for entry in entries:
            parts.setdefault(entry.part or "no part", []).append(entry)
        return parts
    if len({entry.patient for entry in entries}) < len(shares):
        return {"all": entries}
    return split(entries, seed, shares)


def table_of(parts: Mapping[str, Sequence[Entry]]) -> list[dict[str, int | str]]:
    """What each part holds: patients, studies, bleeding, clean, not said, and studies of each kind."""
    kinds = sorted({kind for entries in parts.values() for entry in entries for kind in entry.kinds})
    return [
        {
            "part": name,
            "patients": len({entry.patient for entry in entries}),
            "studies": len(entries),
            "bleeding": sum(entry.any is True for entry in entries),
            "clean": sum(entry.any is False for entry in entries),
            "not said": sum(entry.any is None for entry in entries),
            **{kind: sum(kind in entry.kinds for entry in entries) for kind in kinds},
        }
        for name, entries in parts.items()
    ]
