"""The index of what is durable: what records say, what the table makes of it, and that it leaves nothing behind."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts import events
from contracts.errors import PeerAway
from contracts.events import Arrived, Closed, NotAnalysed, ScanPlace
from contracts.reasons import Reason
from contracts.scans import Place
from producer.commitment import Version
from producer.commitment_index_in import facts_of
from producer.commitment_table_call import Fact, Table

CT = "1.2.840.10008.5.1.4.1.1.2"
STARTS = {("stat", 0): 0, ("routine", 0): 10, ("routine", 1): 0}
NAMES: dict[str, Any] = {
    "study_instance_uid": "1.1",
    "series_instance_uid": "1.2",
    "sop_instance_uid": "1.3",
    "pixel_digest": "p",
    "at": 1.0,
}


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    """In a folder of its own."""
    table = Table(str(tmp_path))
    yield table
    table.close()


def fact(place: Place | None = None, sop_class: str = "", version: str = "p", at_s: float = 1.0) -> Fact:
    """Of the instance 1.3."""
    return Fact("1.3", version, sop_class, place, at_s)


def known(table: Table) -> list[Version]:
    """What the table says of it."""
    return table.known(["1.3"], STARTS).get("1.3", [])


def test_both_halves_make_a_proof_in_either_order(table: Table) -> None:
    """``arrived`` gives the class, the outcome the place; one of them proves nothing."""
    assert known(table) == []
    table.add([fact(Place("stat", 0, 5))])
    assert known(table) == [Version("", durable=False)]
    table.add([fact(sop_class=CT)])
    assert known(table) == [Version(CT, durable=True)]
    table.clear()
    table.add([fact(sop_class=CT)])
    assert known(table) == [Version(CT, durable=False)]
    table.add([fact(Place("stat", 0, 5))])
    assert known(table) == [Version(CT, durable=True)]


def test_a_place_before_the_beginning_of_its_partition_is_gone(table: Table) -> None:
    """Retention moved the beginning to offset 10; a partition that nobody knows proves nothing."""
    table.add([fact(Place("routine", 0, 9), CT)])
    assert known(table) == []
    table.add([fact(Place("routine", 0, 10), CT, at_s=2.0)])
    assert known(table) == [Version(CT, durable=True)]
    table.add([fact(Place("elsewhere", 0, 10), CT, at_s=3.0)])
    assert known(table) == [Version(CT, durable=False)]


def test_the_newest_place_counts_whatever_comes_in_last(table: Table) -> None:
    """An old outcome that is read late does not hide where the image was stored again."""
    table.add([fact(Place("routine", 0, 50), CT, at_s=9.0), fact(Place("routine", 0, 5), at_s=1.0)])
    assert known(table) == [Version(CT, durable=True)]


def test_versions_are_told_apart_and_forgotten_by_age(table: Table) -> None:
    """The same UID with other pixels is another row."""
    table.add([fact(Place("stat", 0, 1), CT), fact(sop_class=CT, version="q", at_s=5.0)])
    assert sorted(known(table), key=str) == [Version(CT, durable=False), Version(CT, durable=True)]
    assert table.forget(2.0) == 1
    assert known(table) == [Version(CT, durable=False)]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=60), st.integers(1, 1500))
def test_a_table_knows_what_it_was_told(told: list[tuple[int, bool, bool]], asked: int) -> None:
    """Against a plain dictionary, in requests of any size."""
    table = Table("")
    facts = [Fact(f"1.{n}", "p", CT if a else "", Place("stat", 0, n) if o else None, 1.0) for n, a, o in told]
    table.add(facts)
    found = table.known([f"1.{n}" for n in range(asked)], STARTS)
    table.close()
    for n in range(asked):
        halves = [(a, o) for number, a, o in told if number == n]
        proven = any(a for a, _ in halves) and any(o for _, o in halves)
        assert [version.durable for version in found.get(f"1.{n}", [])] == ([proven] if halves else [])


def test_the_file_has_no_name_and_ends_with_the_process(tmp_path: Path, table: Table) -> None:
    """Nothing to clean up after kill -9."""
    table.add([fact(Place("stat", 0, n), CT, version=str(n)) for n in range(20_000)])
    assert list(tmp_path.iterdir()) == []
    held = [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    assert any(str(tmp_path) in path for path in held)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    """As another program's fault, which the start turns into a sentence."""
    with pytest.raises(PeerAway):
        Table(str(tmp_path / "absent"))


def record(event: events.AnyEvent | None, **changes: Any) -> Any:
    """As it lies on study.events."""
    given: dict[str, Any] = {"key": b"", "value": None, "timestamp": 7000}
    if event is not None:
        given |= {"key": event.key, "value": events.encode(event)}
    return SimpleNamespace(**given | changes)


def outcome(reason: Reason, scan: ScanPlace | None) -> NotAnalysed:
    """Of the instance 1.3."""
    return NotAnalysed(**NAMES, reason=reason, scan=scan)


PLACE = ScanPlace(topic="stat", partition=0, offset=5)
GONE = (Reason.PAYLOAD_MISSING, Reason.RECORD_UNREADABLE, Reason.RECORD_LOST)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Arrived(**NAMES, sop_class_uid=CT, digest="d"), [Fact("1.3", "p", CT, None, 7.0)]),
        (outcome(Reason.LOCALIZER, PLACE), [Fact("1.3", "p", "", Place("stat", 0, 5), 7.0)]),
        (outcome(Reason.DELAYED, None), []),
        *((outcome(reason, PLACE), []) for reason in GONE),
        (Closed(study_instance_uid="1.1", at=1.0, after_offset=3), []),
    ],
    ids=str,
)
def test_what_an_event_says_of_an_instance(event: events.AnyEvent, expected: list[Fact]) -> None:
    """Arrived: a class. An outcome: a place, unless it says that the scan is gone or names none."""
    assert list(facts_of(record(event))) == expected


@pytest.mark.parametrize("value", [None, b"", b"{}", b'{"kind":"arrived"}'], ids=str)
def test_a_record_that_cannot_be_read_proves_nothing(value: bytes | None) -> None:
    """Tombstones and garbage are passed over."""
    key = b"1.1|arrived|1.3|p"
    assert list(facts_of(record(None, key=key, value=value))) == []
    assert list(facts_of(record(None, key=None, value=b"x"))) == []
