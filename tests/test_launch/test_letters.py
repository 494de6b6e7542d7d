"""The list of dead letters: what is open, without the scans themselves, and never more than fits."""

from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import pytest

from contracts.ports import Entry
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.letters_call import HANDLED, Letters, listed


@dataclass
class _Record:
    """As a consumer gives it."""

    offset: int
    headers: list[tuple[str, bytes]]
    value: bytes = field(default=b"", repr=False)
    key: bytes = b"1.2"
    topic: str = "scans.dead"
    partition: int = 0
    timestamp: int = 1_000


def letter(offset: int, place: str, *more: tuple[str, bytes]) -> _Record:
    """One letter, or with HANDLED a mark."""
    return _Record(offset, [("place", place.encode()), ("reason", b"model_refused"), *more], value=bytes(1 << 16))


def test_a_letter_on_the_list_holds_no_scan() -> None:
    """It names where it lies; whoever replays it reads it there."""
    (found,) = listed([letter(7, "scans.stat:0:1")]).letters
    assert (found.lies.topic, found.lies.partition, found.lies.offset) == ("scans.dead", 0, 7)
    assert not [value for name in found.__slots__ if isinstance(value := getattr(found, name), bytes)]


def test_the_latest_letter_of_a_scan_counts_and_a_mark_takes_it_off() -> None:
    """A scan that was replayed and is dead again is on the list under its new place, the old one is handled."""
    records = [letter(0, "a:0:1"), letter(1, "b:0:1"), letter(2, "a:0:1"), letter(3, "b:0:1", (HANDLED, b"replayed"))]
    assert [(one.place, one.lies.offset) for one in listed(records).letters] == [("a:0:1", 2)]


def test_a_list_that_is_full_tells_how_many_more_there_are() -> None:
    """What does not fit is counted, not kept; handled ones among them do not count."""
    records = [letter(number, f"a:0:{number}") for number in range(10)]
    marks = [letter(20, "a:0:0", (HANDLED, b"")), letter(21, "a:0:9", (HANDLED, b""))]
    found = listed([*records, *marks], most=4)
    assert [one.place for one in found.letters] == ["a:0:1", "a:0:2", "a:0:3"]
    assert found.more == 5


def test_letters_that_are_named_are_found_however_many_others_there_are() -> None:
    """The bound of the list is no bound for who knows the place."""
    records = [letter(number, f"a:0:{number}") for number in range(10)]
    assert [one.place for one in listed(records, only=frozenset({"a:0:9"}), most=2).letters] == ["a:0:9"]


class _Log:
    """Takes what it is given, and keeps it among other things that happened."""

    partitions = 3

    def __init__(self, happened: list[str]) -> None:
        self.happened = happened

    def append(self, entry: Entry) -> "Future[Place]":
        """See ``contracts.ports.Log``."""
        self.happened.append(entry.topic)
        future: Future[Place] = Future()
        future.set_result(Place(entry.topic, entry.partition, 5))
        return future


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("claim", ["file:///store/ab/cd", ""])
def test_a_payload_is_made_young_before_a_record_leads_to_it_again(
    monkeypatch: pytest.MonkeyPatch, *, found: bool, claim: str
) -> None:
    """Whoever deletes by age sees it young for as long as the record is there; a scan without a claim has none."""
    happened: list[str] = []
    scan: Any = letter(7, "scans.stat:0:1", ("claim", claim.encode()))
    monkeypatch.setattr("launch.letters_call.KafkaLog", lambda *_: _Log(happened))
    monkeypatch.setattr("launch.letters_call.read_record", lambda *_: scan)

    def renew(asked: str) -> bool:
        happened.append(asked)
        return found

    letters = Letters(KafkaSettings(), by="somebody", renew=renew)
    replayed = letters.replay(listed([scan]).letters[0])
    assert happened == [*([claim] if claim else []), "scans.stat", "study.audit", "scans.dead"]
    assert replayed.place == Place("scans.stat", 0, 5)
    assert replayed.renewed is (found if claim else None)
