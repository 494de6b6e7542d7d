"""Flagging's loop: one thread owns the consumer and every partition that the group gives to this process.

A turn: (1) partitions that left are dropped, new ones held; (2) those not taken are taken, as soon as the store
answers; (3) records are polled and applied; (4) timers run; (5) every few seconds owners say that they live, the
watermark is committed and old studies leave. Nothing in here waits for the store: while Redis is away the partitions
are held, the group membership stays, and scoring goes on.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

from contracts.errors import DecodeError, PeerError
from contracts.hooks import Happening, Hooks
from contracts.names import BEAT_S, FLAGGING_GROUP
from contracts.ports import Log
from worker.flagging.kafka_in import EventsIn
from worker.flagging.lagging import Lagging
from worker.flagging.owner_out import Owner
from worker.flagging.redis_out import Outcome, RedisView

TAKE_AGAIN_S = 0.5  # between tries while the store is away
YIELD_S = 3.0  # after another owner refused us: long enough for the group to tell who owns the partition
COMMIT_AGAIN_S = 2.0  # after a commit that failed
START_GRACE_S = 20.0  # longest wait, before it is called ready, for partitions that may all be with other workers
STORE_LOOK_S = 10.0  # how often the store is asked whether it may drop keys: somebody may change that as it runs
END_AGAIN_S = 1.0  # a fetch tells a partition's end within fetch_max_wait_ms, if it tells it at all
DRAIN_S = 5.0  # for appends of timers that are in flight at the end
REOPEN_S = 1.0  # between tries while the broker is away
TICK_S = 0.2  # how late a timer may be; every open study is looked at
COMMIT_S = 0.5  # a crash and an emptied store at once can announce again what came within that time

# What the store is when it answers and cannot be written (contracts/ports.py Service.peers).
_FULL = "full"
_REFUSALS = {"OutOfMemoryError": _FULL, "ReadOnlyError": "read_only"}
_EVICTING = "evicting"
_ANSWERS = frozenset({"up", _EVICTING})
_PAUSING = frozenset({Outcome.STALE, Outcome.TORN})  # another owner, or a store that goes on dropping: not at once


class FlaggingService:
    """``contracts.ports.Service``. ``make_owner`` makes the owner of one partition; ``clock`` is monotonic."""

    name = "flagging"

    def __init__(
        self,
        source: EventsIn,
        store: RedisView,
        make_owner: Callable[[int], Owner],
        log: Log,
        hooks: Hooks,
        clock: Callable[[], float],
    ) -> None:
        self._source = source
        self._store = store
        self._make_owner = make_owner
        self._log = log
        self._hooks = hooks
        self._clock = clock
        self._lagging = Lagging(source, hooks)
        self._owners: dict[int, Owner] = {}
        self._take_at: dict[int, float] = {}
        self._end_at: dict[int, float] = {}
        self._committed: dict[int, int] = {}
        self._beat_at = self._commit_at = self._tick_at = self._store_at = self._look_at = 0.0
        self._log_id = ""
        self._redis = "unknown"
        self._running = self._complete = False
        self._patient_until = 0.0

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; then the watermark is committed and the group left."""
        self._running, self._patient_until = True, self._clock() + START_GRACE_S
        try:
            while not stop.is_set():
                with self._broker(stop):
                    self._turn(stop)
            with self._broker(stop):
                self._commit()
        finally:
            self._running = False
            self._source.reopen()
            self._store.close()
            self._log.close(DRAIN_S)

    def ready(self) -> bool:
        """Whether the loop runs and its partitions' views were complete once, or did not become so in time.

        Peers that are away are waited for, and do not make it unready again (design decision 13).
        """
        return self._running and (self._complete or self._clock() >= self._patient_until)

    def peers(self) -> Mapping[str, str]:
        """Broker and store."""
        return {"kafka": "up" if self._log.up() else "away", "redis": self._redis}

    def addresses(self) -> Mapping[str, str]:
        """It listens on nothing."""
        return {}

    def _turn(self, stop: threading.Event) -> None:
        self._take_all()
        records = self._source.poll()
        self._reconcile()
        for number, raws in records.items():
            if number in self._owners and self._owners[number].taken:
                self._guarded(self._owners[number], lambda owner, raws=raws: owner.apply(raws, stop))  # type: ignore[misc]
        for owner in self._owners.values():
            self._look(owner)
        self._complete |= bool(self._owners) and all(owner.ready for owner in self._owners.values())
        self._now_and_then()

    def _reconcile(self) -> None:
        """Whatever the group says is ours has an owner, and nothing else has; what it gave anew is taken anew."""
        assigned = self._source.assigned()
        for number in set(self._owners) - assigned:
            self._part_with(number)
        for number in assigned - set(self._owners):
            self._owners[number] = self._make_owner(number)
            self._source.hold(number)
        for number in self._source.regained() & assigned:
            self._give_up(self._owners[number], 0.0)

    def _part_with(self, number: int) -> None:
        """Another's now: what we told of it last must not stand beside what its new owner tells."""
        del self._owners[number]
        self._committed.pop(number, None)
        self._lagging.ended(number)

    def _take_all(self) -> None:
        """Takes what is not taken. A store that did not answer once is left alone for a moment."""
        for owner in self._owners.values():
            now_s = self._clock()
            if not owner.taken and now_s >= max(self._store_at, self._take_at.get(owner.number, 0.0)):
                self._guarded(owner, self._take)

    def _take(self, owner: Owner, *, reset: bool = False) -> Outcome:
        announced, self._log_id = self._source.announced(owner.number), self._source.log_id()
        offset = owner.take(announced, partitions=self._log.partitions, log=self._log_id, reset=reset)
        self._committed.setdefault(owner.number, owner.announced)
        self._source.start(owner.number, offset)
        self._end_at[owner.number] = self._clock() + END_AGAIN_S
        return Outcome.OK

    def _look(self, owner: Owner) -> None:
        if not owner.taken or owner.ready:
            return
        end = self._end(owner.number)
        if end is not None and end < owner.next_offset and self._really_shorter(owner):
            self._hooks.happened(Happening.FAULT, where="log_shorter_than_view")
            self._guarded(owner, lambda owner: self._take(owner, reset=True))
            return
        self._guarded(owner, lambda owner: owner.look(end, self._source.position(owner.number)))

    def _end(self, number: int) -> int | None:
        """The log's end as of the last fetch; asked of the broker where no fetch tells it.

        A broker leaves partitions without news out of its answers (KIP-227): one that came back to us in a rebalance,
        and stands where it stood, would be unknown until its next record.
        """
        end = self._source.seen_end(number)
        if end is None and self._clock() >= self._end_at.get(number, 0.0):
            self._end_at[number] = self._clock() + END_AGAIN_S
            with suppress(PeerError):
                return self._source.ends([number]).get(number)
        return end

    def _really_shorter(self, owner: Owner) -> bool:
        return self._source.ends([owner.number])[owner.number] < owner.next_offset

    def _guarded(self, owner: Owner, step: Callable[[Owner], Outcome]) -> None:
        """A step that needs the store: at the first doubt the partition is held and taken again later."""
        try:
            outcome = step(owner)
            self._store_answered()
        except PeerError as problem:
            if problem.peer != "redis":
                raise
            self._without_store(_REFUSALS.get(problem.detail, "away"))
            return
        except DecodeError:
            self._hooks.happened(Happening.FAULT, where="stored_study")
            outcome = Outcome.LOST
            self._distrust(owner)
        except Exception:  # noqa: BLE001 (a fault of ours at one partition must end neither the others nor scoring)
            self._failed(owner)
            return
        if outcome is Outcome.TORN:
            self._hooks.happened(Happening.FAULT, where="redis_evicted")
        if outcome is not Outcome.OK:
            self._give_up(owner, YIELD_S if outcome in _PAUSING else 0.0)

    def _failed(self, owner: Owner) -> None:
        """Our own code failed: the partition is taken anew, from what is stored, as a restart would."""
        self._hooks.happened(Happening.FAULT, where="flagging")
        self._give_up(owner, YIELD_S)

    def _without_store(self, why: str) -> None:
        """One partition's trouble is every partition's: each for itself would wait for a server that hangs."""
        held = [owner.number for owner in self._owners.values() if owner.taken]
        self._store_is(why)
        if why == _FULL:
            with suppress(PeerError):
                self._store.hush(held)
        self._store_at = self._clock() + TAKE_AGAIN_S
        for owner in self._owners.values():
            self._give_up(owner, TAKE_AGAIN_S)

    def _distrust(self, owner: Owner) -> None:
        with suppress(PeerError):  # tried again when the study is met again
            self._store.forget(owner.number)

    def _give_up(self, owner: Owner, wait_s: float) -> None:
        if owner.taken:
            owner.drop()
            self._lagging.unknown(owner.number)
        self._take_at[owner.number] = self._clock() + wait_s
        self._source.hold(owner.number)

    def _now_and_then(self) -> None:
        now_s = self._clock()
        if now_s >= self._tick_at:
            self._tick_at = now_s + TICK_S
            for owner in self._owners.values():
                self._ticked(owner)
        if now_s >= self._commit_at:
            self._commit_at = now_s + COMMIT_S
            self._commit()
        if now_s >= self._beat_at:
            self._beat_at = now_s + BEAT_S
            self._beat()

    def _ticked(self, owner: Owner) -> None:
        try:
            owner.tick()
        except PeerError:
            raise
        except Exception:  # noqa: BLE001 (as in _guarded)
            self._failed(owner)

    def _beat(self) -> None:
        """Silent while the broker is away: nothing can be heard then, and *ready* would make an old view look whole."""
        self._hooks.happened(Happening.PARTITIONS_ASSIGNED, len(self._owners), group=FLAGGING_GROUP)
        self._same_log()
        for owner in self._owners.values():
            if owner.taken and self._log.up():
                self._guarded(owner, self._alive)
        self._lagging.tell(self._owners.values(), broker_up=self._log.up())
        if self._owners and self._redis != "away":
            with suppress(PeerError):  # the sweep can wait; a full store is the more in need of it
                self._store.leave()

    def _alive(self, owner: Owner) -> Outcome:
        return owner.beat(self._source.seen_end(owner.number), self._source.position(owner.number))

    def _same_log(self) -> None:
        """A topic that was made anew while we read it: what the view stands on is another log's."""
        if self._log_id and self._source.log_id() not in {"", self._log_id}:
            for owner in self._owners.values():
                self._give_up(owner, 0.0)

    def _commit(self) -> None:
        moved = {
            number: owner.announced
            for number, owner in self._owners.items()
            if owner.taken and owner.announced != self._committed.get(number)
        }
        if not moved:
            return
        try:
            self._source.announce(moved)
            self._committed.update(moved)
        except PeerError:  # a group that is moving, or a broker that is away: the watermark can wait
            self._commit_at = self._clock() + COMMIT_AGAIN_S

    def _store_answered(self) -> None:
        now_s = self._clock()
        if now_s >= self._look_at or self._redis not in _ANSWERS:
            self._look_at = now_s + STORE_LOOK_S
            evicts = self._store.evicts()
            if evicts and self._redis != _EVICTING:
                self._hooks.happened(Happening.FAULT, where="redis_may_evict")
            self._store_is(_EVICTING if evicts else "up")

    def _store_is(self, state: str) -> None:
        self._redis = state
        self._hooks.happened(Happening.PEER_UP, float(state in _ANSWERS), peer="redis")

    @contextmanager
    def _broker(self, stop: threading.Event) -> Iterator[None]:
        """A broker that fails us costs the consumer: partitions are taken anew with the next one."""
        try:
            yield
        except PeerError:
            for number in list(self._owners):
                self._part_with(number)
            self._source.reopen()
            stop.wait(REOPEN_S)
