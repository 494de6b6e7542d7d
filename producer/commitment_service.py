"""Storage commitment as one part of the producer: opens and closes with the doors, and tells of what it owes."""

import threading
from collections.abc import Callable, Mapping, Sequence

from contracts.deadline import Deadline
from producer.commitment_reports import WORKERS, Reports
from producer.stamp_call import monotonic_s

TELL_S = 1.0  # between two looks at the gauge
GOODBYE_S = 5.0  # a report on its way may end; a slow peer gets it again from whoever takes over

Run = Callable[[threading.Event], None]


class Commitment:
    """Implements ``producer.service.Door``. ``readers`` run beside the reports."""

    name = "commitment"

    def __init__(self, readers: Sequence[Run], reports: Reports, closed: Callable[[], None]) -> None:
        """``closed``: called when nothing reads any more."""
        self._readers, self._reports, self._closed = readers, reports, closed
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begins in the background: the broker may be away."""
        runs = [*self._readers, *[self._reports.run] * WORKERS, self._tell]
        for number, run in enumerate(runs):
            thread = threading.Thread(target=run, args=(self._stop,), name=f"triage-commitment-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def addresses(self) -> Mapping[str, str]:
        """It listens through the DICOM door."""
        return {}

    def close(self, timeout_s: float) -> None:
        """Leaves the group, so that another producer takes over what is owed."""
        self._stop.set()
        deadline = Deadline.after(min(timeout_s, GOODBYE_S), monotonic_s)
        for thread in self._threads:
            thread.join(deadline.remaining_s())
        if not any(thread.is_alive() for thread in self._threads):
            self._closed()

    def peers(self) -> Mapping[str, str]:
        """``commitment``: reports that do not get through, in words; absent while there are none."""
        owed = self._reports.owed()
        return {"commitment": owed} if owed else {}

    def _tell(self, stop: threading.Event) -> None:
        while not stop.wait(TELL_S):
            self._reports.tell()
