"""What was seen of a run's studies through the worklist while it went on. Pure; safe from many threads."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from chaos.answers import Listed, ListTold

FLAGGED, NOT_FLAGGED, WITHDRAWN = (
    "flagged",
    "not_flagged",
    "withdrawn",
)  # contracts.worklist.Change, contracts.findings.StudyState


@dataclass(slots=True)
class Seen:
    """One study. Times are monotonic seconds."""

    first_s: float | None = None
    flagged_s: float | None = None
    closed: bool = False
    lowered: int = 0  # how often it was flagged in one complete list and not in the next
    vanished: int = 0  # how often it was in no complete list after it had been in one
    doubled: int = 0  # how often it was twice in one list
    hollow: int = 0  # how often it was called not flagged while images of it waited
    told_flagged: int = 0  # live events ``flagged`` since the last ``withdrawn``, at most
    _flagged: bool = False
    _live: int = field(default=0)

    def listed(self, item: Listed, at_s: float, *, complete: bool) -> None:
        """It was in the list."""
        self.first_s = at_s if self.first_s is None else self.first_s
        self.closed = item.closed
        self.hollow += item.state == NOT_FLAGGED and item.waiting > 0
        flagged = item.state == FLAGGED
        if flagged and self.flagged_s is None:
            self.flagged_s = at_s
        if complete:
            self.lowered += self._flagged and not flagged
            self._flagged = flagged

    def told(self, change: str) -> None:
        """A live event told of it."""
        if change == FLAGGED:
            self._live += 1
            self.told_flagged = max(self.told_flagged, self._live)
        elif change == WITHDRAWN:
            self._live = 0

    def forget_live(self) -> None:
        """Live events may have been missed."""
        self._live = 0


class Sightings:
    """Of the studies of one run; others in the same list are not looked at."""

    def __init__(self, uids: Iterable[str]) -> None:
        self._lock = threading.Lock()
        self._seen = {uid: Seen() for uid in uids}
        self._live_ids: set[str] = set()
        self.statuses: Counter[str] = Counter()  # of all reads, and "away" for those without an answer

    def study(self, uid: str) -> Seen:
        """What was seen of one study."""
        return self._seen[uid]

    def closed(self, uid: str) -> bool:
        """Whether it was closed when it was last listed."""
        return self._seen[uid].closed

    def away(self) -> None:
        """The worklist did not answer."""
        with self._lock:
            self.statuses["away"] += 1

    def read(self, told: ListTold, at_s: float) -> frozenset[str]:
        """One read of the list. Returns the studies that it should have held and did not."""
        with self._lock:
            self.statuses[told.status] += 1
            mine = [item for item in told.items if item.study_instance_uid in self._seen]
            for item in mine:
                self._seen[item.study_instance_uid].listed(item, at_s, complete=told.ok)
            times = Counter(item.study_instance_uid for item in mine)
            if told.pages == 1:  # between two pages a study may move
                for uid, count in times.items():
                    self._seen[uid].doubled += count > 1
            known = (uid for uid, seen in self._seen.items() if seen.first_s is not None)
            return frozenset(uid for uid in known if told.ok and uid not in times)

    def vanished(self, uids: Collection[str]) -> None:
        """These were missing from a list that said it was complete, and that is sure."""
        with self._lock:
            for uid in uids:
                self._seen[uid].vanished += 1

    def live(self, event_id: str, change: str, uid: str) -> None:
        """One live event. A stream that goes on after a lost connection may repeat its last one, with its id."""
        with self._lock:
            if uid in self._seen and event_id not in self._live_ids:
                self._live_ids.add(event_id)
                self._seen[uid].told(change)

    def reset(self) -> None:
        """The live stream says that changes may have been missed."""
        with self._lock:
            self._live_ids.clear()
            for seen in self._seen.values():
                seen.forget_live()
