"""Splits: by patient only, in proportion, the same for the same seed."""

import hashlib
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.splits import SHARES, parts_of, split, table_of
from training.data.study import Entry

KINDS = ("intraparenchymal", "subarachnoid", "mass")


def entry(number: int, patient: int, kind: str | None = "", *, part: str | None = None) -> Entry:
    """kind: None not said, empty clean."""
    kinds = frozenset({kind}) if kind else frozenset()
    return Entry(f"{number:04d}", f"p{patient}", str(number), None if kind is None else bool(kind), kinds, part)


many = st.lists(st.tuples(st.integers(0, 30), st.sampled_from((None, "", "", *KINDS))), min_size=3, max_size=80)


def made(told: list[tuple[int, str | None]]) -> list[Entry]:
    return [entry(number, patient, kind) for number, (patient, kind) in enumerate(told)]


@settings(max_examples=40, deadline=None)
@given(many, st.integers(0, 5))
def test_no_patient_is_in_two_parts_and_no_study_is_lost(told: list[tuple[int, str | None]], seed: int) -> None:
    """Whatever the patients and labels; every part has somebody."""
    entries = made(told)
    if len({one.patient for one in entries}) < len(SHARES):
        with pytest.raises(ValueError, match="patients cannot be split"):
            split(entries, seed)
        return
    parts = split(entries, seed)
    where: dict[str, set[str]] = {}
    for name, members in parts.items():
        assert members
        for one in members:
            where.setdefault(one.patient, set()).add(name)
    assert {len(names) for names in where.values()} == {1}
    assert sorted(one.uid for members in parts.values() for one in members) == sorted(one.uid for one in entries)


@settings(max_examples=20, deadline=None)
@given(many, st.randoms(use_true_random=False))
def test_order_of_entries_and_patients_keys_decide_nothing(told: list[tuple[int, str | None]], dice: object) -> None:
    """The same studies and seed give the same split on another machine, with other pseudonyms."""
    entries = made(told)
    renamed = [replace(one, patient=hashlib.sha256(one.patient.encode()).hexdigest()) for one in entries]
    if len({one.patient for one in entries}) < len(SHARES):
        return
    dice.shuffle(renamed)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    one, other = split(entries, 3), split(renamed, 3)
    assert {name: {e.uid for e in part} for name, part in one.items()} == {
        name: {e.uid for e in part} for name, part in other.items()
    }


def test_shares_and_kinds_are_kept_in_proportion() -> None:
    """With enough patients every part gets its share of studies and of every kind."""
    entries = [entry(number, number // 2, ("", "", *KINDS)[number // 2 % 5]) for number in range(600)]
    parts = split(entries, 1)
    for name, share in SHARES.items():
        assert len(parts[name]) == pytest.approx(600 * share, rel=0.12)
        counts = Counter(one.stratum for one in parts[name])
        for kind in KINDS:
            assert counts[kind] == pytest.approx(120 * share, rel=0.35)


def test_another_seed_gives_another_split() -> None:
    """A seed decides something."""
    entries = [entry(number, number, ("", *KINDS)[number % 4]) for number in range(100)]
    assert {e.uid for e in split(entries, 1)["test"]} != {e.uid for e in split(entries, 2)["test"]}


def test_wrong_shares_are_refused() -> None:
    """They must be positive and sum to one."""
    entries = [entry(number, number) for number in range(9)]
    for shares in ({"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}):
        with pytest.raises(ValueError, match="shares"):
            split(entries, 1, shares)


def test_a_sources_own_split_is_kept_as_it_is() -> None:
    """Also where it leaks: that is the check's to say."""
    entries = [entry(0, 1, part="train"), entry(1, 1, part="test"), entry(2, 2)]
    assert {name: len(part) for name, part in parts_of(entries, 1).items()} == {"train": 1, "test": 1, "no part": 1}
    assert list(parts_of([entry(0, 1), entry(1, 1)], 1)) == ["all"]
    assert table_of(parts_of(entries, 1))[0] == {
        "part": "train",
        "patients": 1,
        "studies": 1,
        "bleeding": 0,
        "clean": 1,
        "not said": 0,
    }
