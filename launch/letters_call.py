"""Dead letters: what lies on ``scans.dead``, and what a person does with it.

A letter is named by the place of the scan it is about (``topic:partition:offset``). What was done is written three
times, in this order, each acknowledged before the next: the deed itself (the scan into its lane, or the event), the
audit trail, and a mark on ``scans.dead`` that takes the letter off the list. A crash in between leaves the letter on
the list: replaying it again gives the same events, under the same keys. Before a scan goes into its lane its payload
in the store is made young again: by its age it could be deleted while the new record waits (leftovers_out).

A letter holds a whole scan. The list keeps what tells of it and where it lies; the scan is read when it is needed.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition

from contracts.errors import PeerAway, PeerTimeout, TriageError
from contracts.events import NotAnalysed, encode
from contracts.hooks import Silent
from contracts.names import partition_of
from contracts.ports import Entry
from contracts.reasons import Reason
from contracts.scans import Place
from contracts.settings import KafkaSettings
from launch.clients.kafka_call import KafkaLog, log_ends, make_consumer, mapped, read_record, topics_of

LETTER_HEADERS = ("reason", "detail", "place", "handled")
HANDLED = "handled"
AUDIT_SCHEMA = 1
_READ_S = 60.0  # longest silence of the broker while the letters are read
_POLL_MS = 200
_CLOSE_S = 5.0
LETTERS_MAX = 10_000  # on one list, some 10 MB; whoever has more handles these first
# Letters are as large as scans: no more of them at once than one fetch gives.
_SMALL_FETCHES: dict[str, Any] = {"max_partition_fetch_bytes": 1024**2, "fetch_max_bytes": 16 * 1024**2}


@dataclass(frozen=True, slots=True)
class Letter:
    """One open letter. ``received_at``: epoch seconds; ``detail`` never carries patient data; ``lies``: where it is."""

    place: str
    reason: str
    detail: str
    study_instance_uid: str
    sop_instance_uid: str
    received_at: float | None
    at: float
    lies: Place

    def told(self) -> dict[str, Any]:
        """What a list shows: no payload, no patient data."""
        return {
            "place": self.place,
            "reason": self.reason,
            "detail": self.detail,
            "study_instance_uid": self.study_instance_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "received_at": self.received_at,
            "failed_at": self.at,
        }


@dataclass(frozen=True, slots=True)
class Listed:
    """Open letters, oldest first, at most LETTERS_MAX; ``more``: how many are left out."""

    letters: list[Letter]
    more: int


@dataclass(frozen=True, slots=True)
class Replayed:
    """Where the scan lies now. ``renewed``: whether its payload in the store is young again, None where it has none."""

    place: Place
    renewed: bool | None


class Letters:
    """The letters of one cluster. Close it when done. Raises PeerError while the broker is away.

    ``renew``: makes the payload of a claim young again; False where it could not.
    """

    def __init__(self, settings: KafkaSettings, by: str, renew: Callable[[str], bool]) -> None:
        self._settings = settings
        self._renew = renew
        self._by = by
        self._topics = topics_of(settings)
        self._log = KafkaLog(settings, Silent())

    def close(self) -> None:
        """Ends the connection."""
        self._log.close(_CLOSE_S)

    def open(self) -> Listed:
        """Letters that nobody has handled; one for each scan, its latest."""
        return listed(self._records())

    def named(self, places: Iterable[str]) -> list[Letter]:
        """The open letters of those places. Raises TriageError for one that is not on the list."""
        wanted = list(dict.fromkeys(places))
        found = {letter.place: letter for letter in listed(self._records(), only=frozenset(wanted)).letters}
        if unknown := [place for place in wanted if place not in found]:
            raise TriageError(f"There is no open dead letter {', '.join(unknown)}: see `triage dead list`.")
        return [found[place] for place in wanted]

    def replay(self, letter: Letter) -> Replayed:
        """The scan goes into its lane again, as it was."""
        source, record = _place(letter.place), read_record(self._settings, letter.lies)
        value, key, headers = record.value or b"", letter.study_instance_uid.encode(), _scan_headers(record)
        claim = dict(headers).get("claim", b"").decode("utf-8", "replace")
        renewed = self._renew(claim) if claim else None
        if not value and not claim:
            value = read_record(self._settings, source).value or b""  # the letter was too large to keep it
        new = self._append(Entry(source.topic, source.partition, key, value, headers))
        self._written_down(letter, "dead_letter_replayed", {"new_place": f"{new.topic}:{new.partition}:{new.offset}"})
        return Replayed(new, renewed)

    def discard(self, letter: Letter, why: str) -> None:
        """The image stays *not analysed*, now by a person's decision, who says why."""
        if letter.study_instance_uid:
            event = _discarded(letter, read_record(self._settings, letter.lies))
            self._append(Entry(self._topics.events, self._partition(letter), event.key, encode(event)))
        self._written_down(letter, "dead_letter_discarded", {"why": why})

    def _written_down(self, letter: Letter, action: str, more: dict[str, str]) -> None:
        audit = {"schema_version": AUDIT_SCHEMA, "at": time.time(), "by": self._by, "action": action}
        audit |= {"study_instance_uid": letter.study_instance_uid, "sop_instance_uid": letter.sop_instance_uid}
        audit |= {"place": letter.place, "reason": letter.reason, **more}
        key, partition = letter.study_instance_uid.encode(), self._partition(letter)
        self._append(Entry(self._topics.audit, partition, key, json.dumps(audit).encode()))
        mark = ((HANDLED, action.encode()), ("place", letter.place.encode()))
        self._append(Entry(self._topics.dead, _place(letter.place).partition, key, b"", mark))

    def _partition(self, letter: Letter) -> int:
        return partition_of(letter.study_instance_uid, self._log.partitions)

    def _append(self, entry: Entry) -> Place:
        try:
            return self._log.append(entry).result(self._settings.ack_timeout_s * 2)
        except TimeoutError as problem:
            raise PeerTimeout("kafka", "no acknowledgement") from problem

    def _records(self) -> Iterator[Any]:
        """Everything on ``scans.dead`` up to now; within a partition in order."""
        tps = [TopicPartition(self._topics.dead, number) for number in range(self._log.partitions)]
        consumer = make_consumer(self._settings, group=None, client_id="triage-dead", **_SMALL_FETCHES)
        try:
            with mapped():
                consumer.assign(tps)
                consumer.seek_to_beginning(*tps)
                ends = log_ends(consumer, tps)
                yield from _until(consumer, ends)
        finally:
            consumer.close(autocommit=False)


def listed(records: Iterable[Any], only: frozenset[str] | None = None, most: int = LETTERS_MAX) -> Listed:
    """The open ones of everything on the topic, read once. ``only``: places that are asked for."""
    letters: dict[str, Letter] = {}
    left_out: set[int] = set()  # by hash: a few bytes for each
    for record in records:
        headers = {name: value or b"" for name, value in record.headers}
        place = headers.get("place", b"").decode("utf-8", "replace")
        if only is not None and place not in only:
            continue
        if HANDLED in headers:
            letters.pop(place, None)
            left_out.discard(hash(place))
        elif place in letters or len(letters) < most:
            letters[place] = _letter(record, headers)
        else:
            left_out.add(hash(place))
    return Listed(sorted(letters.values(), key=lambda letter: letter.at), len(left_out))


def _until(consumer: Any, ends: dict[TopicPartition, int]) -> Iterator[Any]:
    heard_s = time.monotonic()
    while any((consumer.position(tp) or 0) < end for tp, end in ends.items()):
        batches = consumer.poll(timeout_ms=_POLL_MS)
        for batch in batches.values():
            yield from batch
        if batches:
            heard_s = time.monotonic()
        elif time.monotonic() - heard_s > _READ_S:
            raise PeerAway("kafka", "the dead letters cannot be read to their end")


def _letter(record: Any, headers: dict[str, bytes]) -> Letter:
    told = {name: value.decode("utf-8", "replace") for name, value in headers.items()}
    return Letter(
        place=told.get("place", ""),
        reason=told.get("reason", ""),
        detail=told.get("detail", ""),
        study_instance_uid=(record.key or b"").decode("ascii", "replace"),
        sop_instance_uid=told.get("sop_instance_uid", ""),
        received_at=_number(told.get("received_at", "")),
        at=record.timestamp / 1000,
        lies=Place(record.topic, record.partition, record.offset),
    )


def _scan_headers(record: Any) -> tuple[tuple[str, bytes], ...]:
    """The headers that the scan itself had."""
    return tuple((name, value or b"") for name, value in record.headers if name not in LETTER_HEADERS)


def _discarded(letter: Letter, record: Any) -> NotAnalysed:
    told = {name: value.decode("utf-8", "replace") for name, value in _scan_headers(record)}
    frames = told.get("frames", "1")
    return NotAnalysed(
        study_instance_uid=letter.study_instance_uid,
        series_instance_uid=told.get("series_instance_uid", ""),
        sop_instance_uid=letter.sop_instance_uid,
        pixel_digest=told.get("pixel_digest", ""),
        traceparent=told.get("traceparent", ""),
        at=time.time(),
        frames=int(frames) if frames.isdecimal() else 1,
        reason=Reason.DISCARDED,
    )


def _place(text: str) -> Place:
    topic, partition, offset = text.rsplit(":", 2)
    return Place(topic, int(partition), int(offset))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
