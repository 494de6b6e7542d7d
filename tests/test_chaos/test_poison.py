"""The poison of ``poison_event``: sound but for one thing, in the partitions that it is meant for."""

from random import Random

import pytest

from chaos.logged import EventKey, LogTold
from chaos.phantoms import heads
from chaos.poison import EXTREMES, Poison, poison
from chaos.scenario import Load
from contracts import events
from contracts.errors import DecodeError
from contracts.names import partition_of
from contracts.settings import FlaggingSettings
from worker.flagging.view import PartitionFold, Raw, Taken

PARTITIONS = 6
RECORDS = poison(PARTITIONS, Random(3))


def readable(one: Poison) -> events.AnyEvent | None:
    """None where the contract refuses it."""
    try:
        return events.decode_any(one.value)
    except DecodeError:
        return None


def test_every_partition_is_given_every_kind() -> None:
    """As many in each, and each study's in its own; what is no study's is there, too."""
    counts = {number: sum(one.partition == number for one in RECORDS) for number in range(PARTITIONS)}
    assert set(counts.values()) == {len(RECORDS) // PARTITIONS}
    studies = [(one.key.split(b"|")[0].decode("latin-1"), one.partition) for one in RECORDS]
    named = [(uid, number) for uid, number in studies if uid.startswith("2.25.")]
    assert all(partition_of(uid, PARTITIONS) == number for uid, number in named)
    assert len(RECORDS) / 2 < len(named) < len(RECORDS)


def test_what_is_extreme_is_sound_in_all_else() -> None:
    """The slices beside it are read as events of their study: it is refused, or folded, for that one value alone."""
    sound = [one for one in RECORDS if isinstance(event := readable(one), events.Scored) and event.key == one.key]
    assert len(sound) >= 2 * len(EXTREMES) * PARTITIONS


@pytest.mark.parametrize("partition", range(PARTITIONS))
@pytest.mark.parametrize("at_once", [1, 500])
def test_a_partition_is_folded_to_its_end(partition: int, at_once: int) -> None:
    """One by one or all together: nothing of it stops the owner of the partition."""
    raws = [
        Raw(n, 1.8e9 + n, one.key, one.value) for n, one in enumerate(r for r in RECORDS if r.partition == partition)
    ]
    fold = PartitionFold(Taken(partition, "o", 0, 0, inherits=False), FlaggingSettings(), 0)
    for at in range(0, len(raws), at_once):
        readings = fold.readings(raws[at : at + at_once])
        for uid in fold.missing(readings):
            fold.take_up(uid, None)
        fold.written(fold.fold(readings, min(at + at_once, len(raws))))
    assert fold.next_offset == len(raws)


def test_the_ledger_reads_past_all_of_it() -> None:
    """Keys that are no text, or no event's, are none of an image; the others are those of other studies."""
    told = LogTold.of([one.key for one in RECORDS], [], [])
    assert {key.study_instance_uid.startswith("2.25.") for key in told.keys} == {True}
    assert (
        EventKey.of(b"") is EventKey.of(b"\xff") is EventKey.of(b"1.2|arrived") is EventKey.of(b"1.2|scored|1") is None
    )


def test_an_image_far_away_is_one_more_of_its_study() -> None:
    """As many studies have one as the load says, without a lesion; other loads are what they were."""
    plain, far = (heads(Load(studies=4, images=(3, 3), far=count), 1, "far") for count in (0, 2))
    assert sorted(len(study.pictures) for study in far) == [3, 3, 4, 4]
    assert sum(b"1e308" in picture.part10 for study in far for picture in study.pictures) == 2
    assert not any(b"1e308" in picture.part10 for study in plain for picture in study.pictures)
    assert all(picture.readable and not picture.lesion for s in far for picture in s.pictures[3:])
