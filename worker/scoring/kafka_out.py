"""What scoring appends: study events and dead letters. Nothing is settled before their futures have come true."""

from concurrent.futures import Future

from contracts.events import Lost, NotAnalysed, Scored, encode
from contracts.names import Topics, partition_of
from contracts.ports import Entry, Log
from contracts.reasons import Reason
from contracts.scans import Place
from worker.scoring.custody import Fetched

LETTER_HEADERS = ("reason", "detail", "place")
NOT_KEPT = "the payload is not kept in the letter"
_DETAIL_BYTES = 200


class Publisher:
    """Appends through the shared log."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topics = topics

    def event(self, event: Scored | NotAnalysed) -> "Future[Place]":
        """To ``study.events``, in the study's partition."""
        study = event.study_instance_uid
        partition = partition_of(study, self._log.partitions)
        return self._log.append(Entry(self._topics.events, partition, event.key, encode(event)))

    def lost(self, lost: Lost) -> "Future[Place]":
        """To ``study.events``, in the partition that lost them."""
        return self._log.append(Entry(self._topics.events, lost.partition, lost.key, encode(lost)))

    def dead(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """To ``scans.dead``: the record as it was, with reason and place. Raises PeerError where it cannot be asked."""
        return self._log.append(_letter(self._topics.dead, record, reason, detail, record.value))

    def dead_without_payload(self, record: Fetched, reason: Reason, detail: str) -> "Future[Place]":
        """The same for a record that is too large once the reason is added: the letter's place still leads to it."""
        return self._log.append(_letter(self._topics.dead, record, reason, f"{detail}; {NOT_KEPT}", b""))


def _letter(topic: str, record: Fetched, reason: Reason, detail: str, value: bytes) -> Entry:
    place = f"{record.place.topic}:{record.place.partition}:{record.place.offset}"
    kept = tuple((name, content) for name, content in record.headers if name not in LETTER_HEADERS)
    told = (("reason", reason.value.encode()), ("detail", detail.encode()[:_DETAIL_BYTES]), ("place", place.encode()))
    return Entry(topic, record.place.partition, record.key, value, (*kept, *told))
