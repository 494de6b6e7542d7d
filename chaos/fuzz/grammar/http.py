"""Requests to the worklist: paths, cursors, filters, headers."""

import base64
import json
from typing import Any

from chaos.fuzz.dice import Dice
from chaos.fuzz.grammar.damage import EDGES, damaged
from chaos.fuzz.parcel import pack, unpack

METHODS = (b"GET", b"GET", b"GET", b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"")
WORKLIST, STUDY, EVENTS = b"/v1/worklist", b"/v1/studies/", b"/v1/events"
OTHERS = (
    b"/",
    b"/docs",
    b"/openapi.json",
    b"/v1",
    b"//",
    b"/../../etc/passwd",
    b"/static/..%2f..%2fetc/passwd",
    b"*",
    b"/\xff",
)
UIDS = (
    b"1.2.3",
    b"",
    b"%00",
    b"..%2F..",
    b"1" * 300,
    b"%ff%fe",
    b"1.2.3/images",
    b"%0d%0aX:y",
    b"\xc3\xa9",
    b"*",
    b"{}",
)
NAMES = (b"limit", b"cursor", b"state", b"urgency", b"page", b"limit[]", b"", b"\xff")
VALUES = (
    *(
        b"1",
        b"100",
        b"1000",
        b"1001",
        b"0",
        b"-1",
        b"1e3",
        b"nan",
        b"9" * 400,
        b"true",
        b"",
        b"%00",
        b"\xff",
        b"flagged",
    ),
    *(b"not_flagged", b"critical", b"routine", b"x" * 5000, b"[]", b"%F0%9F%92%A9", b"1%", b"%zz", b"0x1", b"1;2"),
)
EVENT_IDS = (
    b"0-0",
    b"1-1",
    b"0",
    b"",
    b"-",
    b"9" * 30 + b"-0",
    b"1-",
    b"-1",
    b"1-1-1",
    b"\xd9\xa1-\xd9\xa1",
    b"$",
    b">",
    b"+",
    b"*",
)
HEADERS = (
    b"last-event-id",
    b"authorization",
    b"host",
    b"traceparent",
    b"accept",
    b"range",
    b"content-length",
    b"x" * 300,
)
HOSTS = (
    b"127.0.0.1",
    b"127.0.0.1",
    b"localhost:8090",
    b"[::1]",
    b"evil.example",
    b"",
    b"127.0.0.1.evil",
    b"[::",
    b"\xff",
)
RANKS: tuple[Any, ...] = (1.5, 0, -1, 1e308, "1.5", "nan", "inf", "1e999", None, [], {}, True, "0x1", " 1", "1_0", "١")
MOST_DEPTH = 3000


def request(dice: Dice) -> bytes:
    """A parcel: method, target, then header names and values in turn."""
    headers = [b"host", dice.pick(HOSTS) if dice.chance(6) else HOSTS[0]]
    target = _target(dice)
    if target.startswith(EVENTS) or dice.chance(4):
        headers += [HEADERS[0], _event_id(dice)]
    for _ in range(dice.whole(0, 2)):
        headers += [dice.pick(HEADERS), dice.pick(VALUES) if dice.chance(2) else dice.octets(40)]
    return pack([dice.pick(METHODS), target, *headers])


def wire_of(parcel: bytes) -> bytes:
    """The same as an HTTP/1.1 request on the wire."""
    method, target, *headers = (*unpack(parcel), b"", b"")
    named = zip(headers[::2], headers[1::2], strict=False)
    lines = [
        b"%s %s HTTP/1.1" % (method, target.replace(b" ", b"%20")),
        *(b"%s: %s" % pair for pair in named if pair[0]),
    ]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])


def cursor(dice: Dice) -> bytes:
    """A cursor, or something like one."""
    place = [dice.pick(RANKS), dice.pick(("1.2.3", "", "\ud800", "a" * 300, None, 1, [1]))]
    if dice.chance(4):
        place = dice.pick(([], place + place, [place], place[:1]))
    text = json.dumps(place, separators=(",", ":")).encode()
    if dice.chance(20):
        text = b"[" * dice.whole(1, MOST_DEPTH)
    if dice.chance(4):
        text = damaged(dice, text)
    encoded = base64.urlsafe_b64encode(text).rstrip(b"=")
    return damaged(dice, encoded, 2) if dice.chance(4) else encoded


def _target(dice: Dice) -> bytes:
    kind = dice.whole(0, 9)
    if kind < 5:  # noqa: PLR2004 - half of them ask for the list
        return WORKLIST + _query(dice)
    if kind < 7:  # noqa: PLR2004 - a fifth ask for one study
        return STUDY + (dice.pick(UIDS) if not dice.chance(3) else dice.octets(40))
    if kind == 7:  # noqa: PLR2004 - a tenth listen
        return EVENTS + _query(dice)
    return dice.pick(OTHERS) if not dice.chance(3) else b"/" + dice.octets(60)


def _query(dice: Dice) -> bytes:
    pairs = [_pair(dice) for _ in range(dice.whole(0, 3))]
    return b"?" + dice.pick((b"&", b"&", b"&", b";")).join(pairs) if pairs else b""


def _pair(dice: Dice) -> bytes:
    name = dice.pick(NAMES)
    if name == b"cursor":
        return name + b"=" + cursor(dice)
    if name == b"limit" and dice.chance(2):
        return name + b"=%d" % dice.pick(EDGES)
    return name + dice.pick((b"=", b"=", b"")) + dice.pick(VALUES)


def _event_id(dice: Dice) -> bytes:
    return dice.pick(EVENT_IDS) if not dice.chance(4) else b"%d-%d" % (dice.pick(EDGES), dice.pick(EDGES))
