"""Live changes to many readers from one tail of the stream.

The tail puts each change once into a ring that all readers share; a reader is a place in that ring. So memory does not
grow with readers, and a reader that falls a whole ring behind is cut: it comes back with its ``Last-Event-ID``.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from contracts.errors import PeerError
from worklist.access import Role, visible
from worklist.answers import Reset
from worklist.status import Standing
from worklist.view import BEGINNING_ID, StreamChange, View, id_order

RING_CHANGES = 1024  # at 2 kB and two roles: 4 MB; at 50 changes a second a reader may pause for 20 s
REPLAY_PAGE = 100  # changes of one round trip while a reader catches up
RESET = "reset"


@dataclass(frozen=True, slots=True)
class Told:
    """One event as it goes out; the data for each role is made once, whatever the number of readers."""

    id: str
    event: str
    data: Mapping[Role, str]


class Hub:
    """The ring. All methods run on the one event loop of the server."""

    def __init__(self, ring: int = RING_CHANGES) -> None:
        self._ring: deque[Told] = deque(maxlen=ring)
        self._next = 0  # sequence number of the next change to be published
        self._news = asyncio.Event()
        self.position: str | None = None  # id of the newest change published; None before the tail has begun
        self.closed = False
        self.readers = 0

    def publish(self, changes: Sequence[StreamChange]) -> None:
        """Tells every reader."""
        for change in changes:
            self._put(told(change))
            self.position = change.id
        self._wake()

    def reset(self, standing: Standing) -> None:
        """Tells every reader that changes may have been missed, or that the status is another now."""
        self._put(told_reset(self.position or BEGINNING_ID, standing))
        self._wake()

    def close(self) -> None:
        """Lets every reader go."""
        self.closed = True
        self._wake()

    async def follow(self, start: int) -> AsyncIterator[Told]:
        """What is published from sequence number ``start`` on; ends when the reader is too slow or the hub closes."""
        at = start
        while not self.closed:
            news = self._news
            oldest = self._next - len(self._ring)
            if at < oldest:
                return
            if at == self._next:
                await news.wait()
                continue
            yield self._ring[at - oldest]
            at += 1

    @property
    def next(self) -> int:
        """Where a reader that comes now begins."""
        return self._next

    def _put(self, one: Told) -> None:
        self._ring.append(one)
        self._next += 1

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def events(hub: Hub, view: View, standing: Standing, last_event_id: str | None) -> AsyncIterator[Told]:
    """One reader's events, from the moment of this call: nothing is missed between it and the first one taken.

    1. Take the place in the ring and the stream position it stands for, together.
    2. Behind ``last_event_id``, tell what the stream still holds up to that position; a `reset` if it is not whole.
    3. Follow the ring.
    """
    return _events(hub, view, standing, last_event_id, hub.next, hub.position)


async def _events(  # the reader's whole state, made in one place above
    hub: Hub, view: View, standing: Standing, last_event_id: str | None, start: int, position: str | None
) -> AsyncIterator[Told]:
    if last_event_id is not None:
        async for one in _missed(view, standing, last_event_id, position):
            yield one
    async for one in hub.follow(start):
        yield one


async def _missed(view: View, standing: Standing, after: str, until: str | None) -> AsyncIterator[Told]:
    try:
        if until is None or not (await view.bounds()).holds_after(after):
            yield told_reset(until or BEGINNING_ID, standing)
            return
        while id_order(after) < id_order(until):
            after, changes = await view.changes(after, REPLAY_PAGE)
            for change in changes:
                if id_order(change.id) <= id_order(until):
                    yield told(change)
            if not changes:
                return
    except (PeerError, ValueError):  # the store went away, or the id is none of ours: the list is the way back
        yield told_reset(until or BEGINNING_ID, standing)


def told(change: StreamChange) -> Told:
    """A change, for each role."""
    data = {role: visible(change.item, role).model_dump_json() for role in Role}
    return Told(change.id, change.change.value, data)


def told_reset(position: str, standing: Standing) -> Told:
    """The hint to read the list again. Its id is the stream's position, so that a reconnect goes on from there."""
    data = Reset(status=standing.status, detail=standing.detail).model_dump_json()
    return Told(position, RESET, dict.fromkeys(Role, data))
