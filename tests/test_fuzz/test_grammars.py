"""The grammars: sound where nothing is made wrong, the same for the same dice, and wrong in many ways otherwise."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.fuzz.dice import Dice, Seeded, Tape
from chaos.fuzz.grammar import part10, records, stream
from chaos.fuzz.grammar.elements import EXPLICIT_LITTLE, Encoding, Unreadable, nested, read, written
from chaos.fuzz.parcel import pack, unpack
from chaos.fuzz.pure import TARGETS
from chaos.fuzz.samples_in import all_samples, heads
from contracts import events
from contracts.scans import Place, ScanHeaders
from producer.intake import Door, Received, examine
from producer.lanes import Lanes
from worker.scoring.analysis import Work

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom tells what is wrong with what is made wrong
GRAMMARS = {name: target.grammar for name, target in TARGETS.items()}


@given(st.lists(st.binary(max_size=50), max_size=8))
def test_a_parcel_gives_back_its_parts(parts: list[bytes]) -> None:
    """Inputs of several parts are kept as one."""
    assert unpack(pack(parts)) == parts


@given(st.binary(max_size=60))
def test_any_bytes_are_some_parcel(data: bytes) -> None:
    """A damaged parcel is taken apart as far as it goes."""
    assert sum(map(len, unpack(data))) <= len(data)


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_the_same_seed_and_number_make_the_same_input(grammar: Callable[[Dice], bytes]) -> None:
    """A failure is found again by its numbers; other numbers make other inputs."""
    made = [grammar(Seeded(5, number)) for number in range(60)]
    assert made == [grammar(Seeded(5, number)) for number in range(60)]
    assert len(set(made)) > 30


@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_an_exhausted_tape_still_makes_an_input(grammar: Callable[[Dice], bytes]) -> None:
    """A coverage-guided fuzzer begins with nothing: every grammar has a plain input for that."""
    assert grammar(Tape(b"")) == grammar(Tape(bytes(3000)))


@pytest.mark.parametrize("sample", heads(), ids=lambda sample: sample.name)
def test_a_head_put_together_again_goes_the_whole_way_to_the_model(sample: part10.Sample) -> None:
    """Taking a file apart changes nothing, in any encoding: mutations begin at an image that would be scored."""
    from chaos.fuzz.doubles import SoundModel
    from chaos.fuzz.scoring_targets import analyser

    file = part10.sound_of(sample)
    accepted = examine(Received(file, Door.STOW, "stow", 1.0, ""), Lanes(()))
    work = Work(accepted.headers, file, Place("scans.routine", 0, 0), 1.0)
    told = list(analyser().events(work, SoundModel().ask))
    assert accepted.whole
    assert {type(event) for event in told} == {events.Scored}


def test_most_samples_are_taken_apart() -> None:
    """Only then can their elements be made wrong one by one; some broken ones are there too."""
    apart = [sample for sample in all_samples() if sample.apart]
    assert len(apart) > 50
    assert len(apart) < len(all_samples())


@pytest.mark.parametrize("encoding", [EXPLICIT_LITTLE, Encoding(implicit=True), Encoding(big_endian=True)])
@pytest.mark.parametrize("defined", [True, False])
def test_nested_sequences_are_sound_at_any_depth(encoding: Encoding, defined: bool) -> None:  # noqa: FBT001 - a case
    """Depth is what is tried, not broken encoding: our own reader follows to the end."""
    made = written([nested(40, encoding, defined=defined)], encoding)
    assert len(read(made, encoding)) == 1
    with pytest.raises(Unreadable):
        read(made[:-1], encoding)


def test_the_grammar_of_files_makes_sound_and_broken_ones() -> None:
    """A grammar whose files are all refused at the first byte tries nothing."""
    files = [GRAMMARS["intake"](Seeded(8, number)) for number in range(300)]
    assert 0.2 < sum(map(_accepted, files)) / len(files) < 0.9


def _accepted(file: bytes) -> bool:
    try:
        examine(Received(file, Door.STOW, "stow", 1.0, ""), Lanes(()))
    except Exception:  # noqa: BLE001 - which one is the other tests' business
        return False
    return True


def test_the_grammars_of_records_make_sound_and_broken_ones() -> None:
    """As above, for events and headers."""
    readable = 0
    for number in range(300):
        readable += _reads(lambda n=number: events.decode(records.event(Seeded(8, n))))  # type: ignore[misc]
        readable += _reads(lambda n=number: _headers(records.scan_headers(Seeded(8, n))))  # type: ignore[misc]
    assert 0.2 < readable / 600 < 0.9


def _reads(read_one: Callable[[], object]) -> bool:
    try:
        read_one()
    except Exception:  # noqa: BLE001 - as above
        return False
    return True


def _headers(parcel: bytes) -> ScanHeaders:
    parts = unpack(parcel)
    return ScanHeaders.decode([(name.decode(), value) for name, value in zip(parts[::2], parts[1::2], strict=True)])


def test_the_grammar_of_series_makes_places_that_no_slice_has() -> None:
    """Neighbours of one study, whole and sound but for numbers at the ends of a double, as text and as floats."""
    slices = [one for number in range(300) for one in unpack(GRAMMARS["image_to_view"](Seeded(8, number)))]
    assert sum(map(_accepted, slices)) > 0.9 * len(slices)
    assert any(b"0\\0\\1e308" in one for one in slices)
    assert any(struct.pack("<d", float(extreme)) in one for one in slices for extreme in part10.EXTREMES[:6])
    assert sum(any(extreme.encode() in one for extreme in part10.EXTREMES) for one in slices) > 100
    assert {(h.study_instance_uid, h.series_instance_uid) for h in map(_header_of, filter(_accepted, slices))} == {
        ("1.2.3", "1.2.3.1")
    }


def _header_of(file: bytes) -> ScanHeaders:
    return examine(Received(file, Door.STOW, "stow", 1.0, ""), Lanes(())).headers


def test_no_input_changes_what_later_inputs_are_made_of() -> None:
    """Odd values are copied in: one that was nested into itself stopped a run of a million after 24,000."""
    before = repr(records.ODD)
    for number in range(3000):
        records.events(Seeded(5, number))
    assert repr(records.ODD) == before


def test_a_stream_that_is_not_made_wrong_begins_with_a_sound_request() -> None:
    """Type, length and protocol version of an A-ASSOCIATE-RQ (PS3.8 9.3.2), so that what follows is looked at."""
    grammar = stream.grammar_of(stream.Objects(GRAMMARS["intake"]))
    starts = [grammar(Seeded(3, number)) for number in range(200)]
    sound = [s for s in starts if s[:1] == b"\x01" and 6 + int.from_bytes(s[2:6], "big") <= len(s)]
    assert len(sound) > 100
