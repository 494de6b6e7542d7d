"""Records on ``study.events`` that nobody can read, or whose values break whoever folds them. Pure.

They speak of studies of their own, so a run's studies must end as if they were not there: a partition in which one of
them stops its owner stops every study in it.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from contracts.names import partition_of

FAR_MM, LARGE_MM2 = 9e307, 1e300  # finite, and no more once it is divided by a tenth, multiplied or added
COUNT = 2**62  # frames that nobody can go through
LATE_S = 1e300  # no calendar has it
DEPTH = 100_000  # brackets: beyond every parser's recursion
SLICE_MM = 5.0

Told = dict[str, Any]

# Whatever is sound JSON and of the right kinds, at the ends of what a double can hold: changes of one field each.
EXTREMES: tuple[tuple[str, object], ...] = (
    ("position_mm", FAR_MM),
    ("position_mm", -FAR_MM),
    ("position_mm", 5e-324),
    ("thickness_mm", 1e308),
    ("thickness_mm", 5e-324),
    ("area_mm2", LARGE_MM2),
    ("centroid_mm", [1e308, -1e308]),
    ("frames", COUNT),
    ("frame", COUNT),
    ("frame", -COUNT),
    ("at", LATE_S),
    ("at", -LATE_S),
)


@dataclass(frozen=True, slots=True)
class Poison:
    """One record for one partition."""

    partition: int
    key: bytes
    value: bytes = field(repr=False)


def poison(partitions: int, dice: Random) -> list[Poison]:
    """Some of every kind for every partition, in the order of the dice."""
    made = [Poison(number, *record) for number in range(partitions) for record in _records(number, partitions, dice)]
    return dice.sample(made, len(made))


def _records(partition: int, partitions: int, dice: Random) -> Iterator[tuple[bytes, bytes]]:
    yield from _unreadable(_study(partition, partitions, dice))
    for name, value in EXTREMES:
        yield from _extreme(_study(partition, partitions, dice), name, value)
    stranger, study = _scored("1.2.3", 0), _study(partition, partitions, dice)
    yield _key({**stranger, "study_instance_uid": study}), _json(stranger)  # another study's, under this one's key
    yield b"|lost|scans.routine|%d" % partition, _json(_lost(partition))


def _unreadable(study: str) -> Iterator[tuple[bytes, bytes]]:
    """No text, no JSON, no event, no end, no study."""
    key = f"{study}|scored|1|0|p|m|1".encode()
    yield key, b"\xff\xfe\x00"
    yield key, b"{"
    yield key, _json({"kind": "scored"})
    yield key, _json({"kind": "unheard of", "study_instance_uid": study})
    yield key, b"[" * DEPTH
    yield b"\xff", b"\xff"
    yield b"", b"null"


def _extreme(study: str, name: str, value: object) -> Iterator[tuple[bytes, bytes]]:
    """Two neighbouring slices that agree, of which one, and then both, have such a value."""
    for nth in range(2):
        yield _record(_scored(study, nth))
    for nth in range(2):
        yield _record(_with(_scored(study, nth + 1), name, value))


def _with(told: Told, name: str, value: object) -> Told:
    """The event with that field changed, its measures' where it is one of theirs."""
    if name in told:
        return {**told, name: value}
    return {**told, "measures": {label: {**measure, name: value} for label, measure in told["measures"].items()}}


def _scored(study: str, nth: int) -> Told:
    measure = {"probability": 0.99, "threshold": 0.5, "area_mm2": 500.0}
    image = {"series_instance_uid": f"{study}.1", "sop_instance_uid": f"{study}.1.{nth}", "pixel_digest": f"p{nth}"}
    place = {"position_mm": nth * SLICE_MM, "thickness_mm": SLICE_MM, "frame": 0, "frames": 1}
    told = {"kind": "scored", "schema_version": 1, "study_instance_uid": study, "at": 1.8e9}
    measures = {"any": measure, "subdural_epidural": measure}
    return {**told, **image, **place, "model": "m", "model_version": "1", "measures": measures}


def _lost(partition: int) -> Told:
    """Everything in the partition, up to the end of time: only a word that nobody believes is harmless."""
    place = {"lane": "routine", "topic": "scans.routine", "partition": partition, "first": 0, "upto": 1}
    return {"kind": "lost", "schema_version": 1, **place, "before": LATE_S, "at": 1.8e9}


def _record(told: Told) -> tuple[bytes, bytes]:
    return _key(told), _json(told)


def _key(told: Told) -> bytes:
    """As contracts.events.Scored writes it."""
    names: Sequence[object] = (
        *(told[name] for name in ("study_instance_uid", "kind", "sop_instance_uid", "frame", "pixel_digest")),
        *(told["model"], told["model_version"]),
    )
    return "|".join(map(str, names)).encode()


def _json(told: Told) -> bytes:
    return json.dumps(told).encode()


def _study(partition: int, partitions: int, dice: Random) -> str:
    """A UID that nobody has, of that partition."""
    while partition_of(uid := f"2.25.{dice.getrandbits(100)}", partitions) != partition:
        pass
    return uid
