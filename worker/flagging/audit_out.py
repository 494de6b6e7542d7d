"""Every change of a study's state as one record on ``study.audit``, keyed by study, before it is announced.

A record names the partition and offset of the event that caused it. A crash between the record and the commit of the
watermark repeats the record: same study, same offset, same change, so a reader can drop it.
"""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from contracts.errors import PeerError
from contracts.ports import Entry, Log
from contracts.scans import Place
from worker.flagging.view import Told

ACK_S = 30.0  # the log itself gives up earlier
RETRY_S = 0.5


class Audit:
    """The audit trail. Keeps trying while the broker is away: nothing is announced that was not audited."""

    def __init__(self, log: Log, topic: str) -> None:
        self._log = log
        self._topic = topic

    def write(self, partition: int, told: Sequence[Told], stop: threading.Event) -> bool:
        """Whether every record is durable; False where ``stop`` came first."""
        missing = [self._entry(partition, one) for one in told]
        while missing:
            missing = self._append(missing)
            if missing and stop.wait(RETRY_S):
                return False
        return True

    def _append(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries that are not known to be durable."""
        pending = [(entry, self._begin(entry)) for entry in entries]
        return [entry for entry, future in pending if not _durable(future)]

    def _begin(self, entry: Entry) -> "Future[Place] | None":
        try:
            return self._log.append(entry)
        except PeerError:
            return None

    def _entry(self, partition: int, told: Told) -> Entry:
        record = {"study_instance_uid": told.uid, "partition": partition, **told.entry.model_dump(mode="json")}
        return Entry(self._topic, partition, told.uid.encode(), json.dumps(record).encode())


def _durable(future: "Future[Place] | None") -> bool:
    try:
        return future is not None and future.result(ACK_S) is not None
    except (PeerError, TimeoutError):
        return False
