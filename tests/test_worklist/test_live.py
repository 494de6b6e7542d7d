"""One tail, many readers: the ring, the resume, the reset."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest

from contracts.errors import PeerAway
from contracts.worklist import Change, QueueStatus
from tests.test_worklist.view_writer import PATIENT_WORDS, item
from worklist.access import Role
from worklist.live import RESET, Hub, Told, events
from worklist.status import Standing
from worklist.view import Bounds, StreamChange, id_order

OK = Standing(QueueStatus.OK)


def _change(number: int) -> StreamChange:
    return StreamChange(f"{number}-0", Change.REVISED, item(f"1.{number}"))


class Stream:
    """A stream that can be trimmed, cut off or asked often: faults that a real store gives at its own time only."""

    def __init__(self, held: Sequence[int], *, away: bool = False) -> None:
        self.held = list(held)
        self.away = away
        self.asked = 0

    async def bounds(self) -> Bounds:
        """See View."""
        if self.away:
            raise PeerAway("redis")
        return Bounds(f"{self.held[0]}-0", f"{self.held[-1]}-0") if self.held else Bounds(None, None)

    async def changes(self, after: str, limit: int, wait_s: float = 0.0) -> tuple[str, Sequence[StreamChange]]:
        """See View."""
        del wait_s
        self.asked += 1
        found = [n for n in self.held if id_order(f"{n}-0") > id_order(after)][:limit]
        return (f"{found[-1]}-0" if found else after), [_change(n) for n in found]

    page = study = close = None  # not asked for here


async def _take(source: AsyncIterator[Told], count: int) -> list[Told]:
    return [await asyncio.wait_for(anext(source), 5) for _ in range(count)]


def test_every_reader_gets_every_change_once_in_order() -> None:
    """Fifty readers of one ring, some begun late: each gets what was published after it came."""

    async def run() -> None:
        hub = Hub()
        early = [asyncio.create_task(_take(hub.follow(hub.next), 6)) for _ in range(25)]
        await asyncio.sleep(0)
        hub.publish([_change(n) for n in (1, 2, 3)])
        late = [asyncio.create_task(_take(hub.follow(hub.next), 3)) for _ in range(25)]
        await asyncio.sleep(0)
        hub.publish([_change(4)])
        hub.publish([_change(5), _change(6)])
        for told in await asyncio.gather(*early):
            assert [one.id for one in told] == [f"{n}-0" for n in range(1, 7)]
        for told in await asyncio.gather(*late):
            assert [one.id for one in told] == ["4-0", "5-0", "6-0"]

    asyncio.run(run())


def test_a_reader_that_falls_a_ring_behind_is_cut_and_others_are_not() -> None:
    """The ring is all there is: what a slow reader has not taken is not kept for it."""

    async def run() -> None:
        hub = Hub(ring=4)
        slow, fast = hub.follow(hub.next), hub.follow(hub.next)
        hub.publish([_change(0)])
        assert (await anext(slow)).id == "0-0"
        assert (await anext(fast)).id == "0-0"
        for n in range(1, 6):
            hub.publish([_change(n)])
            assert (await anext(fast)).id == f"{n}-0"
        with pytest.raises(StopAsyncIteration):
            await anext(slow)
        assert len(hub._ring) == 4

    asyncio.run(run())


def test_closing_lets_waiting_readers_go() -> None:
    """A reader that waits for news ends when the service stops."""

    async def run() -> None:
        hub = Hub()

        async def read() -> list[Told]:
            return [one async for one in hub.follow(hub.next)]

        waiting = asyncio.create_task(read())
        await asyncio.sleep(0)
        hub.close()
        assert await asyncio.wait_for(waiting, 5) == []

    asyncio.run(run())


def _resumed(
    stream: Stream, last_event_id: str | None, *, published: int | None, then: Sequence[int] = ()
) -> list[Told]:
    """What a reader gets that comes back with that id while the tail stands at ``published``."""

    async def run() -> list[Told]:
        hub = Hub()
        if published is not None:
            hub.position = f"{published}-0"
        source = events(hub, stream, OK, last_event_id)  # type: ignore[arg-type]  # the methods it asks for
        told: list[Told] = []

        async def read() -> None:
            told.extend([one async for one in source])

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        hub.publish([_change(n) for n in then])
        await asyncio.sleep(0.05)
        hub.close()
        await reading
        return told

    return asyncio.run(run())


def test_a_resume_tells_what_was_missed_then_goes_on_without_gap_or_repeat() -> None:
    """Behind the id, in pages, up to where the tail stands; from there the ring, once each."""
    stream = Stream(range(1, 256))
    told = _resumed(stream, "10-0", published=250, then=[251, 252])
    assert [one.id for one in told] == [f"{n}-0" for n in range(11, 253)]
    assert {one.event for one in told} == {"revised"}
    assert stream.asked == 3


@pytest.mark.parametrize(
    ("held", "last_event_id", "why"),
    [
        (range(5, 9), "4-0", "it was trimmed"),
        (range(5, 9), "0-0", "the beginning was trimmed"),
        (range(5, 9), "99-0", "it is newer than the stream: the store was emptied or is an older one"),
        ((), "7-0", "the stream is gone"),
        (range(5, 9), "nonsense", "it is none of ours"),
        (range(5, 9), "7", "it is none of ours"),
        (range(5, 9), "-1-0", "it is none of ours"),
        (range(5, 9), "", "it is none of ours"),
        (range(5, 9), "9" * 5000 + "-0", "it is none of ours"),
    ],
)
def test_an_id_that_cannot_be_resumed_gets_one_reset(held: Sequence[int], last_event_id: str, why: str) -> None:
    """The reader is told to read the list again, never left with a gap; then it goes on."""
    told = _resumed(Stream(held), last_event_id, published=8, then=[9])
    assert [(one.event, one.id) for one in told] == [(RESET, "8-0"), ("revised", "9-0")], why
    assert json.loads(told[0].data[Role.READER])["status"] == "ok"


def test_a_store_that_is_away_gives_a_reset() -> None:
    """What was missed cannot be told now, so the reader is told that something may be missing."""
    told = _resumed(Stream([1, 2], away=True), "1-0", published=2)
    assert [one.event for one in told] == [RESET]


def test_before_the_tail_has_begun_a_resume_gets_a_reset() -> None:
    """A service that has just started with its store away knows no position yet."""
    assert [one.event for one in _resumed(Stream([1, 2]), "1-0", published=None)] == [RESET]


def test_a_reader_without_an_id_begins_now() -> None:
    """No replay and no reset for somebody who comes for the first time."""
    assert [one.id for one in _resumed(Stream(range(1, 9)), None, published=8, then=[9])] == ["9-0"]


def test_an_up_to_date_reader_gets_nothing_twice() -> None:
    """The newest id resumes with nothing."""
    assert _resumed(Stream(range(1, 9)), "8-0", published=8) == []


def test_ops_hear_no_patient() -> None:
    """The data for ops holds no patient data, the one for readers does."""
    (told,) = _resumed(Stream([1]), None, published=1, then=[2])
    assert not [word for word in PATIENT_WORDS if word in told.data[Role.OPS]]
    assert all(word in told.data[Role.READER] for word in PATIENT_WORDS)
    assert json.loads(told.data[Role.OPS])["study_instance_uid"] == "1.2"
