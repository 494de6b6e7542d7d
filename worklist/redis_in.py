"""Reads the view that flagging keeps in Redis (layout: contracts/names.py RedisKeys). Nothing is written here.

A page is one script, a study one transaction: one round trip each, and each read at one instant.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import redis.asyncio as aio
from pydantic import ValidationError

from contracts.errors import DecodeError
from contracts.names import RedisKeys
from contracts.ports import Mapped
from contracts.settings import RedisSettings
from contracts.worklist import Backlog, Change, HistoryEntry, ImageItem, StoredImage, WorklistItem
from worklist.cursor import Cursor
from worklist.view import Bounds, Page, PartitionView, Place, StreamChange, StudyView

_STATE = ("status", "beat", "backlog", "run", "evicted")  # fields of a partition's hash, as page.lua reads them
_LUA = Path(__file__).with_name("page.lua").read_text(encoding="utf-8")


class RedisView:
    """``worklist.view.View`` on redis-py. Connects on first use, to a server that may be away.

    ``partitions`` is believed only until the store tells how many the topics really have.
    """

    def __init__(self, settings: RedisSettings, partitions: int, client: "aio.Redis", mapped: Mapped) -> None:
        self._keys = RedisKeys(settings.key_prefix)
        self._partitions = partitions
        self._timeout_s = settings.timeout_s
        self._client = client
        self._mapped = mapped
        self._page = client.register_script(_LUA)

    async def page(self, after: Cursor | None, limit: int) -> Page:
        """See ``Source.page``."""
        place = (after.rank, after.study_instance_uid) if after else ()
        arguments = (self._keys.study(""), self._partition_prefix, self._partitions, limit, *place)
        with self._mapped():
            keys = [self._keys.queue, self._keys.partitions]
            total, first, places, partitions, expected, now, *life = await self._page(keys=keys, args=arguments)
        return Page(
            total=total,
            first=first,
            places=[Place(rank.decode(), uid.decode(), item) for uid, rank, item in _rows(places, 3)],
            partitions=[_partition(int(n), state, _seconds(now), life) for n, *state in _rows(partitions, 6)],
            expected=expected,
        )

    async def study(self, study_instance_uid: str) -> StudyView:
        """See ``View.study``."""
        found = await self._study(study_instance_uid, self._partitions)
        if found.expected != self._partitions:  # told for the first time: now all of them are asked
            self._partitions = found.expected
            found = await self._study(study_instance_uid, self._partitions)
        return found

    async def _study(self, study_instance_uid: str, count: int) -> StudyView:
        keys, pipeline = self._keys, self._client.pipeline(transaction=True)
        pipeline.hget(keys.study(study_instance_uid), "item")
        pipeline.hvals(keys.images(study_instance_uid))
        pipeline.lrange(keys.history(study_instance_uid), 0, -1)
        pipeline.zrank(keys.queue, study_instance_uid)
        pipeline.time()
        pipeline.info("server")
        pipeline.info("stats")
        pipeline.get(keys.partitions)
        for number in range(count):
            pipeline.hmget(keys.partition(number), list(_STATE))
        with self._mapped():
            item, images, history, place, now, server, stats, told, *partitions = await pipeline.execute()
        life = [str(server["run_id"]).encode(), str(stats["evicted_keys"]).encode()]
        return StudyView(
            item=_item(item) if item else None,
            images=_images(images),
            history=_history(history),
            place=place,
            partitions=[
                _partition(number, state, _seconds(now), life) for number, state in enumerate(partitions) if state[0]
            ],
            expected=int(told) if told else count,
        )

    async def bounds(self) -> Bounds:
        """See ``View.bounds``."""
        pipeline = self._client.pipeline(transaction=True)
        pipeline.xrange(self._keys.changes, count=1)
        pipeline.xrevrange(self._keys.changes, count=1)
        with self._mapped():
            first, last = await pipeline.execute()
        return Bounds(_first_id(first), _first_id(last))

    async def changes(self, after: str, limit: int, wait_s: float = 0.0) -> tuple[str, Sequence[StreamChange]]:
        """See ``View.changes``. A change that cannot be read is left out: readers of the list see it degraded."""
        block_ms = int(min(wait_s, self._timeout_s / 2) * 1000) or None  # an idle stream is no dead socket
        with self._mapped():
            streams = cast("Any", await self._client.xread({self._keys.changes: after}, limit, block_ms))
        entries = _entries(streams)
        if not entries:
            return after, ()
        places = await self._places([fields.get(b"uid", b"") for _, fields in entries])
        made = [_change(entry_id, fields, place) for (entry_id, fields), place in zip(entries, places, strict=True)]
        return entries[-1][0].decode(), [change for change in made if change]

    async def close(self) -> None:
        """See ``View.close``."""
        await self._client.aclose()

    @property
    def _partition_prefix(self) -> str:
        return self._keys.partition(0).removesuffix("0")

    async def _places(self, uids: Sequence[bytes]) -> list[int | None]:
        pipeline = self._client.pipeline(transaction=False)
        for uid in uids:
            pipeline.zrank(self._keys.queue, uid)
        with self._mapped():
            return await pipeline.execute()


def _rows(flat: Sequence[Any], width: int) -> list[Any]:
    return [flat[start : start + width] for start in range(0, len(flat), width)]


def _item(stored: bytes) -> WorklistItem:
    try:
        return WorklistItem.model_validate_json(stored)
    except ValidationError:
        raise DecodeError("study item", stored) from None


def _images(stored: Sequence[bytes]) -> tuple[ImageItem, ...]:
    try:
        images = [StoredImage.model_validate_json(one) for one in stored]
    except ValidationError:
        raise DecodeError("study images", b"\n".join(stored)) from None
    images.sort(key=lambda one: (one.arrived_at or 0.0, one.item.sop_instance_uid, one.pixel_digest))
    return tuple(one.item for one in images)


def _history(stored: Sequence[bytes]) -> tuple[HistoryEntry, ...]:
    try:
        return tuple(HistoryEntry.model_validate_json(one) for one in stored)
    except ValidationError:
        raise DecodeError("study history", b"\n".join(stored)) from None


def _partition(number: int, state: Sequence[bytes | None], now_s: float, life: Sequence[bytes]) -> PartitionView:
    """``state`` as ``_STATE``. ``life``: the store's run_id and evicted_keys."""
    status, beat, backlog, *seen = state
    return PartitionView(
        number=number,
        status=(status or b"").decode(),
        silent_s=now_s - float(beat or 0),
        seen=list(seen) == list(life),
        backlog=_backlog(backlog),
    )


def _backlog(stored: bytes | None) -> Backlog | None:
    """None where the owner has not told it yet, or in words of another version."""
    try:
        return Backlog.model_validate_json(stored) if stored else None
    except ValidationError:
        return None


def _seconds(time: Sequence[Any]) -> float:
    return int(time[0]) + int(time[1]) / 1e6


def _first_id(entries: Sequence[tuple[bytes, Any]]) -> str | None:
    return entries[0][0].decode() if entries else None


def _entries(streams: Sequence[tuple[bytes, Sequence[tuple[bytes, Mapping[bytes, bytes]]]]]) -> list[Any]:
    return [entry for _, entries in streams or () for entry in entries]


def _change(entry_id: bytes, fields: Mapping[bytes, bytes], place: int | None) -> StreamChange | None:
    try:
        item = WorklistItem.model_validate_json(fields[b"item"])
        change = Change(fields[b"event"].decode())
    except (KeyError, ValueError):  # ValidationError and UnicodeDecodeError are ValueErrors
        return None
    return StreamChange(
        entry_id.decode(), change, item.model_copy(update={"position": 0 if place is None else place + 1})
    )
