"""One partition in the hands of this process: take it, fold, audit, write, announce; give it up at the first doubt.

1. Take: the store says from which offset to read, and refuses every earlier owner from then on.
2. Take up the open studies, for their timers.
3. Fold a batch of records in memory.
4. Audit: every change is durable on ``study.audit``.
5. Write: studies, ranks, live changes and the offset, in one script.
6. Count, and let the caller commit the watermark of what was announced.

Where the store is away, was emptied, stands elsewhere or answers to another owner, and where our own code fails at an
event, what is in memory is dropped and step 1 comes again: all of these are one case. Nothing is announced twice by
that, since steps 4 and 5 leave out what lies below the watermark.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence

from contracts.findings import Urgency
from contracts.hooks import Happening, Hooks, Stage
from contracts.settings import FlaggingSettings
from contracts.worklist import Backlog, Change, PartitionStatus
from worker.flagging.audit_out import Audit
from worker.flagging.redis_out import Outcome, Pulse, RedisView
from worker.flagging.timers_in import Timers
from worker.flagging.view import Batch, PartitionFold, Raw, Reading, Told, Unfoldable


class Owner:
    """One partition. ``announced``: offset up to which changes were announced, by whoever owned it before."""

    def __init__(
        self, number: int, store: RedisView, audit: Audit, timers: Timers, rules: FlaggingSettings, hooks: Hooks
    ) -> None:
        self.number = number
        self.announced = 0
        self._audited = 0
        self._store = store
        self._audit = audit
        self._timers = timers
        self._rules = rules
        self._hooks = hooks
        self._fold: PartitionFold | None = None
        self._status = PartitionStatus.REBUILDING
        self._target: int | None = None
        self._applied_at = 0.0
        self._reached = 0
        self._since_s = time.monotonic()
        self._failed: Counter[int] = Counter()  # offset → how often folding its event failed

    @property
    def taken(self) -> bool:
        """Whether the partition is in our hands."""
        return self._fold is not None

    @property
    def ready(self) -> bool:
        """Whether the view has reached the log's end as it was when the partition was taken."""
        return self.taken and self._status is PartitionStatus.READY

    @property
    def lag_s(self) -> float:
        """Age of the last record that was applied, by the broker's clock as far as it is known.

        Before the first: how long this owner has been there without reading one.
        """
        return self._timers.lag_s(self._applied_at) if self._applied_at else time.monotonic() - self._since_s

    @property
    def next_offset(self) -> int:
        """The offset to read from."""
        return self._fold.next_offset if self._fold else 0

    @property
    def reached(self) -> int:
        """The offset up to which records were applied, also after the partition was given up.

        Never taken: the offset up to which somebody announced changes.
        """
        return self._fold.next_offset if self._fold else max(self._reached, self.announced)

    def take(self, announced: int, *, partitions: int, log: str = "", reset: bool = False) -> int:
        """Steps 1 and 2; returns the offset to read from. Raises PeerError. ``reset``: the broker lost its log.

        ``log``: the topic's id, "" where it is not known; another one than the store's is as a reset.
        """
        self.drop()
        self.announced = max(self.announced, announced)
        taken = self._store.take(self.number, uuid.uuid4().hex, partitions=partitions, log=log, reset=reset)
        if taken.other_log:
            self._hooks.happened(Happening.FAULT, where="log_replaced")
        self._timers.saw(taken.clock)  # a restart does not set deadlines back
        anew = reset or taken.other_log
        if anew:
            self._failed.clear()
        fold = PartitionFold(taken, self._rules, taken.offset, self._failed)
        for uid, study in self._store.load(taken, self._store.open_studies(taken)):
            fold.take_up(uid, study)
            self._timers.saw(fold.studies[uid].fold.last_arrival_at)  # it is at least as late as that
        self.announced = 0 if anew else max(self.announced, taken.offset)
        self._audited = 0 if anew else max(self._audited, self.announced)
        self._fold = fold
        self._say(PartitionStatus.REBUILDING)
        return taken.offset

    def drop(self) -> None:
        """Forgets what is in memory."""
        if self._fold is not None:
            self._reached = self._fold.next_offset
        self._fold, self._target = None, None

    def apply(self, raws: Sequence[Raw], stop: threading.Event) -> Outcome:
        """Steps 3 to 6. Anything but OK: the partition has to be taken again. Raises PeerError."""
        fold = self._fold
        if fold is None or not raws:
            return Outcome.OK
        self._applied_at = raws[-1].appended_at
        self._timers.saw(self._applied_at)
        upto = max(fold.next_offset, raws[-1].offset + 1)
        readings = fold.readings(raws)
        if upto == fold.next_offset:
            return Outcome.OK
        try:
            batch = self._folded(fold, readings, upto)
        except Unfoldable as problem:
            self._failed[problem.offset] += 1
            self._hooks.happened(Happening.FAULT, where="folding")
            return Outcome.LOST
        if not self._audit_new(batch, stop):
            return Outcome.LOST
        return self._write(fold, batch)

    def look(self, end: int | None, position: int) -> Outcome:
        """Ready once the first known end is reached; ``position`` passes the gaps that compaction left at the end."""
        if end is None or self._fold is None or self.ready:
            return Outcome.OK
        self._target = self._target or end
        if max(position, self.next_offset) < self._target:
            return Outcome.OK
        self._say(PartitionStatus.READY)
        return self.beat(end, position)

    def beat(self, end: int | None, position: int) -> Outcome:
        """Tells the store that we live, which also notices a store that was emptied while nothing happened.

        ``end`` and ``position`` as in ``look``: with records between them, readers hear how old the view is.
        """
        if self._fold is None:
            return Outcome.OK
        self._hooks.happened(Happening.OPEN_STUDIES, len(self._fold.studies), partition=str(self.number))
        clock = self._timers.broker_now()
        unread = end is not None and max(position, self.next_offset) < end
        backlog = self._fold.waiting.backlog(clock).model_copy(update={"behind_s": self.lag_s if unread else 0.0})
        self._tell(backlog)
        pulse = Pulse(self._status, self._target or 0, clock, backlog)
        return self._judged(self._store.beat(self._fold.taken, self.next_offset, pulse))

    def _tell(self, backlog: Backlog) -> None:
        for lane, one in backlog.lanes.items():
            labels = {"partition": str(self.number), "lane": lane.value}
            self._hooks.happened(Happening.IMAGES_WAITING, one.images, **labels)
            self._hooks.happened(Happening.OLDEST_WAITING_SECONDS, one.oldest_s or 0.0, **labels)

    def tick(self) -> None:
        """Runs the timers, only once the view is complete: before, a study's Closed may still lie ahead in the log."""
        if self._fold is not None and self.ready:
            self._timers.tick(self._fold.studies.values(), self._fold.lost)

    def _folded(self, fold: PartitionFold, readings: Sequence[Reading], upto: int) -> Batch:
        for uid, study in self._store.load(fold.taken, fold.missing(readings)):
            fold.take_up(uid, study)
        with self._hooks.stage(Stage.FOLD):
            return fold.fold(readings, upto)

    def _audit_new(self, batch: Batch, stop: threading.Event) -> bool:
        new = [told for told in batch.told if told.entry.offset >= self._audited]
        if not self._audit.write(self.number, new, stop):
            return False
        self._audited = max(self._audited, batch.upto)
        return True

    def _write(self, fold: PartitionFold, batch: Batch) -> Outcome:
        live = [told for told in batch.told if told.entry.offset >= self.announced]
        with self._hooks.stage(Stage.APPLY):
            outcome = self._judged(self._store.apply(fold.taken, batch, live))
        if outcome is Outcome.OK:
            fold.written(batch)
            self._count(batch, live)
            self.announced = max(self.announced, batch.upto)
        return outcome

    def _count(self, batch: Batch, live: Sequence[Told]) -> None:
        if batch.upto > self.announced:
            self._hooks.happened(Happening.EVENT_UNREADABLE, batch.unreadable)
            self._hooks.happened(Happening.STUDY_EXPIRED, batch.expired)
        for told in live:
            if told.entry.change is Change.CLOSED:
                self._hooks.happened(Happening.STUDY_CLOSED, state=told.entry.state.value)
            elif told.entry.change is Change.FLAGGED:
                self._flagged(told.entry.urgency, time.time() - told.item.arrived_at)

    def _flagged(self, urgency: Urgency, seconds: float) -> None:
        self._hooks.happened(Happening.FLAGGED, urgency=urgency.value)
        self._hooks.happened(Happening.TIME_TO_FLAG_SECONDS, max(0.0, seconds), urgency=urgency.value)

    def _judged(self, outcome: Outcome) -> Outcome:
        if outcome is Outcome.STALE:
            self._hooks.happened(Happening.STALE_WRITE)
        return outcome

    def _say(self, status: PartitionStatus) -> None:
        self._status = status
        rebuilding = float(status is PartitionStatus.REBUILDING)
        self._hooks.happened(Happening.REBUILDING, rebuilding, partition=str(self.number))
