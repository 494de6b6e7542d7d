"""Both records of one image, appended together and waited for with one deadline (design decision 4)."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from contracts import events
from contracts.deadline import Deadline
from contracts.errors import PeerTimeout
from contracts.names import Topics, partition_of
from contracts.ports import Entry, Log
from contracts.scans import Place
from producer.intake import Accepted


class KafkaPublisher:
    """Whichever record fails, the caller hears of it; what was written all the same is idempotent downstream."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        ack_timeout_s: float,
        lost: Callable[[], None] = lambda: None,
        durable: Callable[[Accepted, Place], None] = lambda _accepted, _place: None,
    ) -> None:
        """``lost``: no acknowledgement came. ``durable``: both records were acknowledged; the scan lies there."""
        self._log, self._topics, self._ack_timeout_s, self._lost = log, topics, ack_timeout_s, lost
        self._durable = durable

    def publish(self, accepted: Accepted, payload: bytes) -> None:
        """Returns once every in-sync replica has scan and ``arrived``. Raises PeerError within ``ack_timeout_s``."""
        deadline = Deadline.after(self._ack_timeout_s, time.monotonic)
        try:
            partition = partition_of(accepted.headers.study_instance_uid, self._log.partitions)
            places = _wait([self._log.append(entry) for entry in self._entries(accepted, payload, partition)], deadline)
        except Exception:
            self._lost()
            raise
        self._durable(accepted, places[0])

    def _entries(self, accepted: Accepted, payload: bytes, partition: int) -> tuple[Entry, Entry]:
        headers, arrived = accepted.headers, accepted.arrived
        study = headers.study_instance_uid.encode("ascii")
        scan = Entry(self._topics.lane(headers.lane), partition, study, payload, headers.encode())
        return scan, Entry(self._topics.events, partition, arrived.key, events.encode(arrived))


def _wait(futures: Sequence["Future[Place]"], deadline: Deadline) -> list[Place]:
    try:
        return [future.result(deadline.remaining_s()) for future in futures]
    except TimeoutError:
        raise PeerTimeout("kafka", "no acknowledgement within the deadline") from None
