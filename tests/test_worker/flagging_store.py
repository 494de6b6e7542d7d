"""A view in a real store, written without a broker: what owners do with batches, step by step."""

import dataclasses
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis

from contracts import events
from contracts.events import AnyEvent
from contracts.names import RedisKeys
from contracts.settings import FlaggingSettings, RedisSettings
from contracts.worklist import ImageItem, StoredImage, WorklistItem
from launch.clients.redis_call import make_redis, mapped
from tests.test_worker.flagging_events import START_S, STUDY
from worker.flagging.redis_out import Outcome, RedisView
from worker.flagging.view import Batch, PartitionFold, Raw, Taken

RULES = FlaggingSettings()


@dataclasses.dataclass(slots=True)
class Store:
    """A view below a prefix of its own, and a plain client that looks at it from outside."""

    view: RedisView
    client: Any  # redis-py types every answer as bytes or str
    keys: RedisKeys

    def fold(self, taken: Taken) -> PartitionFold:
        """A partition's fold with the open studies of the store."""
        fold = PartitionFold(taken, RULES, taken.offset)
        for uid, study in self.view.load(taken, self.view.open_studies(taken)):
            fold.take_up(uid, study)
        return fold

    def taken(self, owner: str = "me", **given: Any) -> PartitionFold:
        """Takes the only partition."""
        return self.fold(self.view.take(0, owner, partitions=1, **given))

    def batch(self, fold: PartitionFold, some: Sequence[AnyEvent], start: int | None = None) -> Batch:
        """The batch that these events make."""
        start = fold.next_offset if start is None else start
        raws = [Raw(start + n, START_S + start + n, event.key, events.encode(event)) for n, event in enumerate(some)]
        readings = fold.readings(raws)
        for uid, study in self.view.load(fold.taken, fold.missing(readings)):
            fold.take_up(uid, study)
        return fold.fold(readings, start + len(some))

    def write(self, fold: PartitionFold, some: Sequence[AnyEvent]) -> Outcome:
        """Folds and writes, telling every change."""
        batch = self.batch(fold, some)
        outcome = self.view.apply(fold.taken, batch, batch.told)
        if outcome is Outcome.OK:
            fold.written(batch)
        return outcome

    def resume(self, log: Sequence[AnyEvent], owner: str = "next", at_once: int = 3) -> PartitionFold:
        """Takes the partition and reads the log on from where the store stands."""
        fold = self.taken(owner)
        while fold.next_offset < len(log):
            assert self.write(fold, log[fold.next_offset : fold.next_offset + at_once]) is Outcome.OK
        return fold

    def item(self, study: str = STUDY) -> WorklistItem:
        """The row readers see."""
        return WorklistItem.model_validate_json(self.client.hget(self.keys.study(study), "item") or b"")

    def images(self, study: str = STUDY) -> list[ImageItem]:
        """The images readers see."""
        stored = self.client.hvals(self.keys.images(study))
        return sorted((StoredImage.model_validate_json(one).item for one in stored), key=lambda i: i.sop_instance_uid)

    def settlements(self, study: str = STUDY) -> list[int]:
        """Of each image."""
        return [image.settlements for image in self.images(study)]

    def seen(self) -> dict[str, object]:
        """All that readers can see of studies, and what the next owner takes up."""
        parts = ("study:", "images:", "frames:", "history:", "queue", "open:", "leaving")
        names = [name for name in self._names() if name.removeprefix(self.keys.prefix).startswith(parts)]
        return {name: self._plain(name, self._value(name)) for name in names}

    def dump(self) -> dict[str, object]:
        """All that the scripts wrote for studies."""
        return {key: self._value(key) for key in self._names() if ":partition:" not in key}

    def told(self) -> list[str]:
        """The live changes, oldest first."""
        return [fields[b"event"].decode() for _, fields in self.client.xrange(self.keys.changes)]

    def _plain(self, name: str, value: object) -> object:
        """Without the name of the rebuild, which differs from one to the next."""
        if not isinstance(value, dict) or ":study:" not in name:
            return value
        return {key: part for key, part in value.items() if key not in {b"epoch", b"fold"}}

    def _names(self) -> list[str]:
        return sorted(key.decode() for key in self.client.keys(f"{self.keys.prefix}*"))

    def _value(self, key: str) -> object:
        kind = self.client.type(key).decode()
        read: dict[str, Callable[[str], object]] = {
            "hash": self.client.hgetall,
            "set": self.client.smembers,
            "stream": self.client.xrange,
            "string": self.client.get,
            "zset": lambda name: self.client.zrange(name, 0, -1, withscores=True),
            "list": lambda name: self.client.lrange(name, 0, -1),
        }
        return read[kind](key)


@contextmanager
def store_at(url: str) -> Iterator[Store]:
    """A store below a prefix of its own."""
    prefix = f"t{uuid.uuid4().hex[:8]}:"
    settings = RedisSettings(url=url, key_prefix=prefix, timeout_s=2.0)
    view = RedisView(settings, RULES, make_redis(settings), mapped)
    client: Any = redis.Redis.from_url(url, protocol=2)
    yield Store(view, client, RedisKeys(prefix))
    view.close()
    client.close()
