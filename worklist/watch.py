"""Two loops beside the answers: the one tail of the live changes, and the look at the view's standing."""

import asyncio
from dataclasses import dataclass

from contracts.errors import PeerError
from contracts.hooks import Happening, Hooks
from worklist.live import Hub
from worklist.reading import Reading
from worklist.status import Standing
from worklist.view import BEGINNING_ID, View

LOOK_S = 1.0  # a standing is at most that old when readers of live events hear of it
AGAIN_S = 0.5  # pause before a store that is away is asked again
KEEP_S = 60.0  # studies that leave make no change: the remembered list is renewed that often anyway
TAIL_PAGE = 100  # changes of one round trip
TAIL_WAIT_S = 1.0  # must stay under the store's socket timeout


@dataclass(slots=True)
class Watch:
    """Feeds the hub and keeps the reading's standing current, until the hub is closed.

    Cancelling alone would not end the loops: redis-py now and then turns a cancellation into a timeout of its own.
    """

    view: View
    hub: Hub
    reading: Reading
    hooks: Hooks

    async def tail(self) -> None:
        """Publishes what the stream gets. After every doubt it makes sure that nothing was missed."""
        while not self.hub.closed:
            try:
                await self._tail_once()
            except PeerError:
                await asyncio.sleep(AGAIN_S)
            except Exception:  # noqa: BLE001 — a change that cannot be read must not end the tail for everybody
                self.hooks.happened(Happening.FAULT, where="worklist.tail")
                await asyncio.sleep(AGAIN_S)

    async def _tail_once(self) -> None:
        """1. Is the position still on the stream? 2. Publish until nothing comes for a while; then look again."""
        position = await self._sure()
        while not self.hub.closed:
            after, changes = await self.view.changes(position, TAIL_PAGE, TAIL_WAIT_S)
            self.hub.publish(changes)
            if after == position:
                return
            position = self.hub.position = after

    async def _sure(self) -> str:
        bounds = await self.view.bounds()
        newest = bounds.last or BEGINNING_ID
        if self.hub.position is None:
            self.hub.position = newest
        elif not bounds.holds_after(self.hub.position):
            self.hub.position = newest
            self.hub.reset(self.reading.standing)
        return self.hub.position

    async def look(self) -> None:
        """Keeps the standing; tells live readers when it is another."""
        seen, kept_s = "", 0.0
        while not self.hub.closed:
            before, position = self.reading.standing, self.hub.position or ""
            moved = position != seen or kept_s >= KEEP_S
            now = await self._refreshed(moved=moved)
            if now.status is not before.status:
                self.hub.reset(now)
            seen, kept_s = (position, 0.0) if moved else (seen, kept_s + LOOK_S)
            await asyncio.sleep(LOOK_S)

    async def _refreshed(self, *, moved: bool) -> Standing:
        try:
            return await self.reading.refresh(moved=moved)
        except Exception:  # noqa: BLE001 — as above: the look goes on, and the fault is told
            self.hooks.happened(Happening.FAULT, where="worklist.look")
            return self.reading.standing
