"""The list of dead letters: what is open, without the scans themselves, and never more than fits."""

from dataclasses import dataclass, field

from launch.letters_call import HANDLED, listed


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
