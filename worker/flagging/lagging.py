"""What is told of each partition beside the work: how far it is behind, and that nobody here knows any more."""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import nan

from contracts.errors import PeerError
from contracts.hooks import Happening, Hooks
from contracts.names import Lane
from worker.flagging.kafka_in import EventsIn
from worker.flagging.owner_out import Owner


class Lagging:
    """The gauges of partitions. A series ends (NaN) with the knowledge behind it: none stays frozen."""

    def __init__(self, source: EventsIn, hooks: Hooks) -> None:
        self._source = source
        self._hooks = hooks

    def ended(self, number: int) -> None:
        """Another's now: what we told of it last must not stand beside what its new owner tells."""
        labels = {"partition": str(number)}
        for gauge in (Happening.REBUILDING, Happening.OPEN_STUDIES):
            self._hooks.happened(gauge, nan, **labels)
        for gauge in (Happening.LAG_RECORDS, Happening.LAG_SECONDS):
            self._hooks.happened(gauge, nan, topic=self._source.topic, **labels)
        self.unknown(number)

    def unknown(self, number: int) -> None:
        """Nobody here knows what waits in it."""
        for lane in Lane:
            for gauge in (Happening.IMAGES_WAITING, Happening.OLDEST_WAITING_SECONDS):
                self._hooks.happened(gauge, nan, partition=str(number), lane=lane.value)

    def tell(self, owners: Iterable[Owner], *, broker_up: bool) -> None:
        """While the store is away nothing is fetched: then the broker is asked how far the log has grown."""
        every = list(owners)
        held = [owner.number for owner in every if not owner.taken]
        ends: Mapping[int, int] = {}
        if held and broker_up:
            with suppress(PeerError):
                ends = self._source.ends(held)
        for owner in every:
            self._tell(owner, ends.get(owner.number, self._source.seen_end(owner.number) or 0))

    def _tell(self, owner: Owner, end: int) -> None:
        """Where the store is away and nobody knows the end, the age grows all the same."""
        records = max(0, end - owner.reached)
        behind = records or not owner.taken
        labels = {"topic": self._source.topic, "partition": str(owner.number)}
        self._hooks.happened(Happening.LAG_RECORDS, records, **labels)
        self._hooks.happened(Happening.LAG_SECONDS, owner.lag_s if behind else 0.0, **labels)
