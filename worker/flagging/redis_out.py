"""The view in Redis, written here and nowhere else (design decision 6). Layout: contracts/names.py RedisKeys.

Every write is one script that checks who owns the partition and where it stands, so an emptied store, an older
replica and a zombie are noticed by the write itself. Scripts may be repeated: redis-py's retries do no harm.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

import redis
from pydantic import ValidationError

from contracts.errors import DecodeError
from contracts.names import Lane, RedisKeys
from contracts.ports import Mapped
from contracts.settings import FlaggingSettings, RedisSettings
from contracts.worklist import Backlog, PartitionStatus, StoredImage
from worker.flagging.stored import FrameFold, StudyFold
from worker.flagging.study import Study
from worker.flagging.view import Batch, Taken, Told, Write, frame_of

PEER = "redis"
DAY_S = 86400.0
LEAVE_AT_ONCE = 100  # studies taken out in one script: Redis serves nobody else meanwhile
LOAD_AT_ONCE = 50  # studies read in one round trip
EXPIRE_LATER_S = 3600  # the sweep takes a study out whole; the time to live is for the case that nobody sweeps
_FOLDER = Path(__file__).parent


class Outcome(StrEnum):
    """What a script says of the writer: go on, read the store again, somebody else owns the partition, or the store
    dropped what nobody can name.
    """

    OK = "ok"
    LOST = "lost"
    STALE = "stale"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Pulse:
    """What an owner says of itself. ``clock``: the broker's time (epoch seconds), 0 where it is not known."""

    status: PartitionStatus
    target: int
    clock: float = 0.0
    backlog: Backlog = field(default_factory=Backlog)


class RedisView:
    """The store. Connects on first use; raises PeerError where it is away."""

    def __init__(self, settings: RedisSettings, rules: FlaggingSettings, client: "redis.Redis", mapped: Mapped) -> None:
        self._keys = RedisKeys(settings.key_prefix)
        self._settings = settings
        self._rules = rules
        self._client = client
        self._mapped = mapped
        names = ("take", "apply", "beat", "leave")
        self._scripts = {name: self._client.register_script(_script(name)) for name in names}

    def take(self, number: int, owner: str, *, partitions: int, log: str = "", reset: bool = False) -> Taken:
        """Takes one of ``partitions`` over; whoever had it is refused from now on. ``log``: the topic's id."""
        found = self._run("take", number, owner, "reset" if reset else "", partitions, log)
        offset, epoch, inherits, clock, lost, other_log = found
        return Taken(
            number=number,
            owner=owner,
            offset=int(offset),
            epoch=int(epoch),
            inherits=inherits == b"1",
            clock=float(clock or 0.0),
            lost={Lane(lane): float(before) for lane, before in json.loads(lost or "{}").items()},
            other_log=other_log == b"1",
        )

    def apply(self, taken: Taken, batch: Batch, live: Sequence[Told]) -> Outcome:
        """Writes a batch, with the live changes that are to be told."""
        plan = {
            "number": str(taken.number),
            "expect": str(batch.expect),
            "upto": str(batch.upto),
            "epoch": str(taken.epoch),
            "lost": "" if batch.lost is None else json.dumps(batch.lost),
            "keep_s": str(math.ceil(self._settings.keep_days * DAY_S)),
            "changes_max": str(self._settings.changes_max),
            "studies": [self._study(write) for write in batch.writes],
            "changes": [_change(told) for told in live],
        }
        return Outcome(self._run("apply", taken.number, taken.owner, json.dumps(plan)).decode())

    def beat(self, taken: Taken, offset: int, pulse: Pulse) -> Outcome:
        """Says that the owner lives, and how far it is."""
        backlog = pulse.backlog.model_dump_json()
        arguments = (offset, pulse.status.value, pulse.target, repr(pulse.clock), backlog)
        return Outcome(self._run("beat", taken.number, taken.owner, *arguments).decode())

    def evicts(self) -> bool:
        """Whether the store may drop keys by itself: its memory is limited and its policy is not ``noeviction``."""
        with self._mapped():
            memory = self._client.info("memory")
        return bool(memory.get("maxmemory")) and memory.get("maxmemory_policy") != "noeviction"

    def leave(self) -> int:
        """Takes out closed studies whose ``keep_days`` are over; how many."""
        return int(self._run("leave", 0, "", LEAVE_AT_ONCE))

    def hush(self, numbers: Iterable[int]) -> None:
        """Takes the beats away, so that readers hear at once that nothing moves: a full store lets keys go, no more."""
        with self._mapped():
            for number in numbers:
                self._client.hdel(self._keys.partition(number), "beat")

    def forget(self, number: int) -> None:
        """The partition's view is not to be trusted: whoever takes it next builds it anew from the log."""
        with self._mapped():
            self._client.hdel(self._keys.partition(number), "offset")

    def open_studies(self, taken: Taken) -> list[str]:
        """The studies of a partition that are not closed."""
        with self._mapped():
            return sorted(
                uid.decode() for uid in cast("set[bytes]", self._client.smembers(self._keys.open(taken.number)))
            )

    def load(self, taken: Taken, uids: Sequence[str]) -> Iterable[tuple[str, Study | None]]:
        """Studies as the store has them; None for one that it has not, or has from a log that does not count.

        Raises DecodeError where it holds something else, as another version of this service may have written.
        """
        for start in range(0, len(uids), LOAD_AT_ONCE):
            some = uids[start : start + LOAD_AT_ONCE]
            pipeline = self._client.pipeline(transaction=True)
            for uid in some:
                pipeline.hmget(self._keys.study(uid), "fold", "epoch")
                pipeline.hgetall(self._keys.images(uid))
                pipeline.hgetall(self._keys.frames(uid))
            with self._mapped():
                answers = pipeline.execute()
            for place, uid in enumerate(some):
                yield uid, self._read(taken, uid, *answers[3 * place : 3 * place + 3])

    def close(self) -> None:
        """Gives the connections back."""
        self._client.close()

    def _read(
        self,
        taken: Taken,
        uid: str,
        study: list[bytes | None],
        images: dict[bytes, bytes],
        frames: dict[bytes, bytes],
    ) -> Study | None:
        fold, epoch = study
        if fold is None or epoch is None or (int(epoch) != taken.epoch and not taken.inherits):
            return None  # left-overs are not even read: another version may have written them
        try:
            known = StudyFold.model_validate_json(fold)
            rows = {key.decode(): StoredImage.model_validate_json(value) for key, value in images.items()}
            parts = {frame_of(key.decode()): FrameFold.model_validate_json(value) for key, value in frames.items()}
        except ValidationError:
            raise DecodeError("stored study", fold) from None
        if (known.images, known.frames) != (len(rows), len(parts)):  # the store evicted a part: what is left lies
            raise DecodeError("stored study, in part", fold)
        return Study.stored(uid, self._rules, known, rows, parts)

    def _study(self, write: Write) -> dict[str, Any]:
        leave_at = None if write.closed_at is None else write.closed_at + self._settings.keep_days * DAY_S
        return {
            **asdict(write),
            "offset": str(write.offset),
            "rank": repr(write.rank),
            "leave_at": "" if leave_at is None else repr(leave_at),
            "expire_at": "" if leave_at is None else str(int(leave_at) + EXPIRE_LATER_S),
        }

    def _run(self, name: str, number: int, owner: str, *arguments: str | int) -> Any:
        keys = self._keys
        names = [keys.partition(number), keys.queue, keys.changes, keys.open(number), keys.leaving]
        with self._mapped():
            return self._scripts[name](keys=names, args=[keys.prefix, owner, *arguments])


def _change(told: Told) -> dict[str, str]:
    item = told.item.model_dump_json()
    return {"event": told.entry.change.value, "uid": told.uid, "item": item, "offset": str(told.entry.offset)}


def _script(name: str) -> str:
    """A script with the map of the keys on top."""
    return "\n".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("keys", name))
