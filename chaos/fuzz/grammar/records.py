"""Kafka records: scans with headers, keys and claims; study events as JSON, and sequences of them."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.damage import damaged
from chaos.fuzz.parcel import pack

STUDIES = ("1.2.826.0.77.1", "1.2.826.0.77.2")
KEYS = (
    b"1.2.3",
    b"",
    b"\xff",
    b"1.2.3|arrived|x",
    b"9" * 64,
    b"9" * 65,
    b"a|b",
    b"1.2.3\n",
    b"..",
    b"|",
    b"1.2.3|\xff\xfe",
)
CLAIMS = (
    *("file:///nonexistent/ab/abcd", "http://127.0.0.1:9/x", "s3://bucket/key", "memory://x", "ftp://127.0.0.1:9/x"),
    *(
        "file:///proc/self/environ",
        "file:///dev/null",
        "../../etc/passwd",
        "::",
        "zip://a::file:///x",
        "\x00",
        "data:,x",
    ),
    *("github://a:b@main/x", "file://", "a" * 5000, "simplecache::http://127.0.0.1:9/x", "reference://", "python:os"),
)
HEADER_VALUES = (
    b"",
    b"0",
    b"-1",
    b"1",
    b"2",
    b"9" * 5000,
    b"nan",
    b"inf",
    b"1e999",
    b"\xff\xfe",
    b"routine",
    b"stat",
    b"\0",
    b"1.5",
    b"x",
)
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        10**400,
        0.5,
        -0.0,
        1e308,
        1e-320,
        "",
        "x",
        "1.2.3",
        "a|b",
        "nan",
    ),
    *("\ud800", "\x00", "é", "x" * 3000, [], {}, [[]], {"a": 1}, ["1"], "1.2.3\n", "../..", "9" * 65, "🩻" * 64),
)
MOST_DEPTH = 3000
MOST_EVENTS = 40
MOST_STUDIES = 2000


def event(dice: Dice) -> bytes:
    """One study event's JSON: sound, with values of other kinds, or broken text."""
    return _text(dice, _sound(dice, dice.pick(STUDIES), 0))


def event_record(dice: Dice) -> bytes:
    """A parcel: key and value of a record of one of many studies."""
    made = _sound(dice, f"1.2.826.0.79.{dice.whole(0, MOST_STUDIES)}", 0)
    key = _key_of(made) if not dice.chance(8) else dice.pick(KEYS)
    return pack([key, _text(dice, made)])


def events(dice: Dice) -> bytes:
    """A parcel of a partition's records in turn: key, value (empty: a tombstone)."""
    count = dice.pick((1, 4, 12, MOST_EVENTS))
    parts: list[bytes] = []
    for number in range(count):
        made = _sound(dice, dice.pick(STUDIES), number)
        key = _key_of(made) if not dice.chance(8) else dice.pick(KEYS)
        value = json.dumps(made).encode() if not dice.chance(6) else _text(dice, made)
        parts += [key, b"" if dice.chance(20) else value]
    return pack(parts)


def scan_headers(dice: Dice) -> bytes:
    """A parcel of header names and values in turn."""
    return pack(_headers(dice, b""))


def scan_of(payloads: Callable[[Dice], bytes]) -> Callable[[Dice], bytes]:
    """A parcel: key, value, then header names and values in turn."""

    def made(dice: Dice) -> bytes:
        value = payloads(dice) if not dice.chance(6) else dice.octets(60)
        study = f"1.2.826.0.78.{dice.whole(0, MOST_STUDIES)}"
        key = study.encode() if not dice.chance(4) else dice.pick(KEYS)
        return pack([key, value, *_headers(dice, value, study)])

    return made


def _headers(dice: Dice, value: bytes, study: str = "1.2.3") -> list[bytes]:
    told = {
        "schema": "1",
        "study_instance_uid": study,
        **dict.fromkeys(("series_instance_uid", "sop_instance_uid"), "1.2.3"),
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "digest": "0" * 64,
        "pixel_digest": f"{dice.whole(0, 10**9):064d}",
        "source": "FUZZ",
        "received_at": "1.0",
        "traceparent": "",
        "size_bytes": str(len(value)),
        "frames": "1",
        "lane": "routine",
        "claim": "",
    }
    pairs = [(name.encode(), text.encode()) for name, text in told.items()]
    for _ in range(dice.whole(0, 2)):
        pairs = _wrong_header(dice, pairs)
    return [part for pair in pairs for part in pair]


def _wrong_header(dice: Dice, pairs: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    at = dice.whole(0, max(0, len(pairs) - 1))
    name = pairs[at][0] if pairs else b"x"
    wrong = (
        pairs[:at] + pairs[at + 1 :],
        [*pairs[:at], (name, dice.pick(HEADER_VALUES)), *pairs[at + 1 :]],
        [*pairs, (name, dice.octets(30))],
        [(one, dice.pick(CLAIMS).encode() if one == b"claim" else value) for one, value in pairs],
        [*pairs, (dice.octets(12), dice.octets(12))] * dice.pick((1, 1, 50)),
        pairs[::-1],
    )
    return dice.pick(wrong)


def _key_of(event: dict[str, Any]) -> bytes:
    return f"{event['study_instance_uid']}|{event['kind']}|{event.get('sop_instance_uid', '')}".encode(
        "utf-8", "replace"
    )


def _sound(dice: Dice, study: str, number: int) -> dict[str, Any]:
    return dice.pick((_arrived, _scored, _not_analysed, _arrived, _scored, _timer))(dice, study, number)


def _image(dice: Dice, study: str, number: int) -> dict[str, Any]:
    image = dice.whole(0, 5)
    told = {"schema_version": 1, "study_instance_uid": study, "at": 1.8e9 + number, "series_instance_uid": f"{study}.1"}
    return told | {"sop_instance_uid": f"{study}.1.{image}", "pixel_digest": dice.pick("ab") + str(image)}


def _arrived(dice: Dice, study: str, number: int) -> dict[str, Any]:
    frames = dice.pick((1, 1, 1, 3))
    told = {"kind": "arrived", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2", "digest": "d", "frames": frames}
    patient = {"name": "Doe^Jane", "patient_id": "4711"}
    return _image(dice, study, number) | told | {"lane": dice.pick(("routine", "stat")), "patient": patient}


def _scored(dice: Dice, study: str, number: int) -> dict[str, Any]:
    measure = {
        "probability": dice.pick((0.01, 0.99, 0.5, 1.0, 0.0)),
        "threshold": 0.5,
        "area_mm2": dice.pick((0.0, 300.0)),
    }
    told = {
        "kind": "scored",
        "frame": dice.pick((0, 0, 1, 2)),
        "frames": dice.pick((1, 1, 3)),
        "model": "head_ct_lesion",
    }
    place = {
        "position_mm": 5.0 * dice.whole(0, 9),
        "thickness_mm": 5.0,
        "orientation": dice.pick(("axial", "sagittal")),
    }
    measures = {"any": measure, "subdural_epidural": measure}
    return _image(dice, study, number) | told | place | {"model_version": dice.pick("12"), "measures": measures}


def _not_analysed(dice: Dice, study: str, number: int) -> dict[str, Any]:
    reason = dice.pick(("geometry_missing", "localizer", "modality_out_of_scope", "delayed", "record_unreadable"))
    told = {"kind": "not_analysed", "frame": dice.pick((None, 0, 1)), "frames": dice.pick((1, 3)), "reason": reason}
    return _image(dice, study, number) | told


def _timer(dice: Dice, study: str, number: int) -> dict[str, Any]:
    told = {"kind": dice.pick(("closed", "expired")), "after_offset": dice.whole(0, max(1, number))}
    return {"schema_version": 1, "study_instance_uid": study, "at": 1.8e9} | told


def _text(dice: Dice, value: dict[str, Any]) -> bytes:
    for _ in range(dice.whole(0, 3)):
        _odd(dice, value)
    text = json.dumps(value)  # json writes NaN and lone surrogates, as a careless writer would
    if dice.chance(20):
        text = text[:-1] + ',"deep":' + "[" * dice.whole(1, MOST_DEPTH)
    made = text.encode()
    return damaged(dice, made) if dice.chance(3) else made


def _odd(dice: Dice, value: dict[str, Any]) -> None:
    """A value of another kind, a name too many or too few; in a nested object as often as not."""
    inner = [one for one in value.values() if isinstance(one, dict) and one]
    holder = dice.pick(inner) if inner and dice.chance(2) else value
    names = sorted(holder)
    kind = dice.whole(0, 4)
    if kind == 0 and names:
        del holder[dice.pick(names)]
    elif kind == 1:
        holder[dice.pick(("unknown", "", "kind", "reason", "frame"))] = deepcopy(dice.pick(ODD))  # it may be changed
    elif names:
        holder[dice.pick(names)] = deepcopy(dice.pick((*ODD, float("nan"), float("-inf"))))
