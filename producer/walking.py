"""Data sets walked without recursion and within caps (PS3.5 7.5): sequences are followed, nothing is decoded.

pydicom follows sequences of undefined length by recursion, and makes objects of what it finds: ten thousand levels or a
million empty elements cost it the stack, or minutes. Here the walk costs about a microsecond an element and ends at the
caps.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from contracts.errors import Rejected
from contracts.reasons import Reason
from producer.caps import Count
from producer.elements import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Level,
    head,
    is_sequence,
    item_tag,
    level_at,
)

_NOT_ZERO = re.compile(rb"[^\0]")


class Broken(Rejected):
    """A sequence that is none, or that never ends."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.UNPARSABLE, detail)


class Endless(Broken):
    """A value of undefined length without its delimiter: cut short, perhaps."""


class Listener:
    """Hears what is in a sequence, in the order of the bytes. This one does nothing."""

    def sequence(self, element: Element) -> None:
        """A sequence begins."""

    def sequence_end(self) -> None:
        """It ends."""

    def item(self) -> None:
        """An item begins."""

    def item_end(self) -> None:
        """It ends."""

    def value(self, level: Level, element: Element) -> None:
        """An element that is no sequence."""

    def broken(self, value: memoryview) -> None:
        """A sequence of known length could not be followed to its end."""


SILENT = Listener()


def past(level: Level, element: Element, count: Count, listener: Listener = SILENT) -> Element:
    """The element with its end; sequences are followed. Raises Broken where one of undefined length has no end."""
    if is_sequence(level, element):
        return element._replace(end=_follow(level, element, count, listener))
    if element.length == UNDEFINED:
        return element._replace(end=_delimiter(level, element.at, count))
    return Element(element.tag, element.vr, element.length, element.at, element.at + element.length)


def after(element: Element) -> int:
    """Where the next element begins: past the delimiter where there is one."""
    return element.end + (8 if element.length == UNDEFINED else 0)


def _delimiter(level: Level, at: int, count: Count) -> int:
    """Where fragments, or bytes of any kind, end at a Sequence Delimitation Item (PS3.5 A.4)."""
    start = at
    while item_tag(level, at) == ITEM:
        count.one()
        at += 8 + level.order.implicit(level.body, at)[2]
    if item_tag(level, at) == SEQUENCE_END:
        return at
    mark = b"\xfe\xff\xdd\xe0" if level.order.little_endian else b"\xff\xfe\xe0\xdd"
    found = level.body.find(mark, start, level.limit)
    if found < 0:
        raise Endless("no delimiter")
    return found


class _Frame(NamedTuple):
    """One sequence or item that is open. ``end``: where its length says that it ends; -1 where it is undefined."""

    level: Level
    end: int
    is_item: bool
    began: int


def _follow(level: Level, sequence: Element, count: Count, listener: Listener) -> int:
    """Walks a sequence to its end with a stack of our own, and returns where that is (before a delimiter)."""
    stack = [_opened(level, sequence)]
    at = sequence.at
    while True:
        frame = stack[-1]
        try:
            step = _in_item if frame.is_item else _in_sequence
            at, opened = step(frame, at, count, listener)
        except Broken:
            at, opened = _give_up(stack, listener), None
        if opened is not None:
            stack.append(opened)
            count.level(len(stack) // 2 + 1)  # sequences and items take turns
        elif at < 0:  # the frame on top has ended
            at = ~at
            if not stack.pop().is_item:
                listener.sequence_end()
            if not stack:
                return at - 8 if sequence.length == UNDEFINED else at


def _opened(level: Level, sequence: Element) -> _Frame:
    if sequence.length == UNDEFINED:
        return _Frame(level, -1, is_item=False, began=sequence.at)
    end = min(sequence.at + sequence.length, level.limit)
    inner = Level(level.body, level.implicit, level.order, end)
    return _Frame(inner, sequence.at + sequence.length, is_item=False, began=sequence.at)


def _give_up(stack: list[_Frame], listener: Listener) -> int:
    """Back to the innermost sequence whose length is known: it ends there, whatever is in it. Raises Broken."""
    while stack and (stack[-1].is_item or stack[-1].end < 0):
        if not stack.pop().is_item:
            listener.sequence_end()
    if not stack:
        raise Broken("a sequence without end")
    frame = stack[-1]
    listener.broken(memoryview(frame.level.body)[frame.began : frame.level.limit])
    return ~frame.end


def _in_sequence(frame: _Frame, at: int, count: Count, listener: Listener) -> tuple[int, _Frame | None]:
    """The next item, or the end: a position after it, inverted, and no frame."""
    level = frame.level
    if 0 <= frame.end <= at:
        return ~frame.end, None
    tag = item_tag(level, at)
    if tag == SEQUENCE_END:
        return (~(at + 8) if frame.end < 0 else ~frame.end), None
    if tag != ITEM:
        raise Broken("no item")
    count.one()
    listener.item()
    length = level.order.implicit(level.body, at)[2]
    end = -1 if length == UNDEFINED else at + 8 + length
    limit = level.limit if end < 0 else min(end, level.limit)
    inner = level_at(level.body, at + 8, limit, level.order, implicit=level.implicit, within=True)
    return at + 8, _Frame(inner, end, is_item=True, began=at)


def _in_item(frame: _Frame, at: int, count: Count, listener: Listener) -> tuple[int, _Frame | None]:
    """The next element, the sequence that it opens, or the item's end."""
    if 0 <= frame.end <= at:
        listener.item_end()
        return ~at, None
    found = head(frame.level, at)
    if found is None:
        raise Broken("an item without end")
    count.one()
    if found.tag == ITEM_END:
        listener.item_end()
        return ~found.at, None
    if is_sequence(frame.level, found):
        listener.sequence(found)
        return found.at, _opened(frame.level, found)
    if found.length == UNDEFINED:
        found = past(frame.level, found, count)
        listener.value(frame.level, found)
        return after(found), None
    tag, vr, length, value_at, _ = found
    listener.value(frame.level, Element(tag, vr, length, value_at, value_at + length))
    return value_at + length, None


@dataclass(frozen=True, slots=True)
class Walked:
    """The top-level elements that were wanted, and the one at which the walk stopped (``end`` is not its end).

    ``at``: where it stopped. ``cut_short``: a value, or a sequence, goes on beyond the last byte.
    """

    elements: dict[int, Element]
    stopped: Element | None
    at: int
    cut_short: bool


def walk(level: Level, at: int, count: Count, stop: Callable[[int], bool], wanted: frozenset[int]) -> Walked:
    """From ``at`` to the first tag that ``stop`` names, or the end. ``wanted``: empty for all.

    Raises Rejected(TOO_COMPLEX); Broken where a sequence of undefined length cannot be followed.
    """
    kept: dict[int, Element] = {}
    while (found := head(level, at)) is not None and found.tag != ITEM_END:
        if stop(found.tag):
            return Walked(kept, found, at, cut_short=False)
        count.one()
        try:
            whole = past(level, found, count)
        except Endless:
            return Walked(kept, None, at, cut_short=True)
        if not wanted or found.tag in wanted:
            kept[found.tag] = whole
        at = after(whole)
    return Walked(kept, None, at, cut_short=at > level.limit)


def check_rest(level: Level, at: int, count: Count) -> None:
    """Counts what stands behind the pixel data, which only later readers look at. Raises Rejected(TOO_COMPLEX)."""
    try:
        while (at := _next_not_zero(level, at)) < level.limit and (found := head(level, at)) is not None:
            count.one()
            at = after(past(level, found, count))
    except Broken:
        return


def _next_not_zero(level: Level, at: int) -> int:
    """Steps over zeros that pad a file, eight at a time."""
    found = _NOT_ZERO.search(level.body, at, level.limit)
    return at + (found.start() - at) // 8 * 8 if found else level.limit
