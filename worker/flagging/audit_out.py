"""Every change of a study's state as one record on ``study.audit``, keyed by study, before it is announced.

A record names the partition and offset of the event that caused it. A crash between the record and the commit of the
watermark repeats the record: same study, same offset, same change, so a reader can drop it.
"""

import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

from contracts.errors import PeerError
from contracts.ports import Entry, Log
from contracts.scans import Place
from worker.flagging.view import Told

ACK_S = 30.0  # the log itself gives up earlier
LOOK_S = 0.2  # how often a wait looks for the stop
DRAIN_ACK_S = 2.0  # after the stop: a broker that is well answers in milliseconds; else the next owner writes it
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
            missing = self._append(missing, stop)
            if missing and stop.wait(RETRY_S):
                return False
        return True

    def _append(self, entries: Sequence[Entry], stop: threading.Event) -> list[Entry]:
        """The entries that are not known to be durable."""
        pending = [(entry, self._begin(entry)) for entry in entries]
        patience = Patience(stop)
        return [entry for entry, future in pending if not _durable(future, patience)]

    def _begin(self, entry: Entry) -> "Future[Place] | None":
        try:
            return self._log.append(entry)
        except PeerError:
            return None

    def _entry(self, partition: int, told: Told) -> Entry:
        record = {"study_instance_uid": told.uid, "partition": partition, **told.entry.model_dump(mode="json")}
        return Entry(self._topic, partition, told.uid.encode(), json.dumps(record).encode())


class Patience:
    """How long acknowledgements are waited for: together ``ACK_S``, and from the stop on ``DRAIN_ACK_S``."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._until_s = time.monotonic() + ACK_S
        self._stopped = False

    def look_s(self) -> float:
        """How long to wait before asking again; 0 where it is over."""
        now_s = time.monotonic()
        if self._stop.is_set() and not self._stopped:
            self._stopped, self._until_s = True, min(self._until_s, now_s + DRAIN_ACK_S)
        return min(LOOK_S, max(0.0, self._until_s - now_s))


def _durable(future: "Future[Place] | None", patience: Patience) -> bool:
    while future is not None:
        look_s = patience.look_s()
        try:
            return future.result(look_s) is not None
        except PeerError:
            return False
        except TimeoutError:
            if not look_s:
                return False
    return False
