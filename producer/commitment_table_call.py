"""The index of what is durable, in SQLite: one row a version of an instance, found by SOP Instance UID.

A file of this process alone, nameless from the moment it is made and gone with the process, however that ends: an index
that outlived its process could speak of a log that is no more. Identifiers are hashed (BLAKE2b), which keeps the file
small and free of anything that names a patient's study.
"""

import os
import sqlite3
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from contracts.errors import PeerAway
from contracts.scans import Place
from producer.commitment import Version

PEER = "commitment index"
INSTANCE_BYTES, VERSION_BYTES = 16, 8  # of the hashes: no two of 1e9 instances collide; a few versions of one never do
CHUNK = 500  # variables of one query, below SQLite's limit of 999 in old builds
CACHE_KIB = 16 * 1024

# A row's columns: what arrived has a class, what has an outcome has a place, what was acknowledged here has both.
_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE versions (
    instance BLOB, version BLOB, class INTEGER, topic INTEGER, partition INTEGER, place INTEGER, at REAL,
    PRIMARY KEY (instance, version)
) WITHOUT ROWID;
"""
_UPSERT = """
INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    class = coalesce(excluded.class, class),
    topic = iif({older}, topic, excluded.topic),
    partition = iif({older}, partition, excluded.partition),
    place = iif({older}, place, excluded.place),
    at = max(at, excluded.at)
""".format(older="excluded.place IS NULL OR (place IS NOT NULL AND excluded.at < at)")

Starts = Mapping[tuple[str, int], int]  # topic and partition → offset of the oldest record that is kept
Row = tuple[bytes, int | None, int | None, int | None, int | None]  # instance, class, topic, partition, place


@dataclass(frozen=True, slots=True)
class Fact:
    """What one record, or one acknowledgement, says of one version. ``at_s``: epoch seconds.

    ``sop_class_uid`` is empty where it tells none; ``place`` is None where it does not name the scan.
    """

    sop_instance_uid: str
    pixel_digest: str
    sop_class_uid: str
    place: Place | None
    at_s: float


class Table:
    """Thread-safe. Every call raises PeerAway where the disk fails."""

    def __init__(self, folder: str) -> None:
        """``folder``: empty is the system's temporary one."""
        self._folder = folder or None
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}  # of SOP classes and topics
        self._open()

    def add(self, facts: Iterable[Fact]) -> None:
        """Newer facts add to older ones, and replace what they contradict."""
        with self._lock, _mapped():
            self._database.executemany(_UPSERT, [self._row(fact) for fact in facts])
            self._database.commit()

    def known(self, instances: Iterable[str], starts: Starts) -> dict[str, list[Version]]:
        """The versions of each instance, less those whose scan has left the log; without any, it is left out."""
        names = {_hash(uid, INSTANCE_BYTES): uid for uid in instances}
        with self._lock, _mapped():
            rows = [row for chunk in _chunks(list(names)) for row in self._rows(chunk)]
            words = {number: word for word, number in self._numbers.items()}
        found: dict[str, list[Version]] = defaultdict(list)
        for instance, *row in rows:
            version = _version(row, words, starts)
            if version is not None:
                found[names[instance]].append(version)
        return found

    def forget(self, before_s: float) -> int:
        """Drops what was last heard of before that; how many."""
        with self._lock, _mapped():
            dropped = self._database.execute("DELETE FROM versions WHERE at < ?", (before_s,)).rowcount
            self._database.commit()
        return dropped

    def clear(self) -> None:
        """Starts anew, on a new file: also after the disk failed."""
        self.close()
        with self._lock:
            self._open()

    def close(self) -> None:
        """The file is gone."""
        with self._lock, _mapped():
            self._database.close()

    def _open(self) -> None:
        with _mapped():
            handle, path = tempfile.mkstemp(prefix="triage-commitment-", dir=self._folder)  # for our eyes only: 0600
            try:
                self._database = sqlite3.connect(path, check_same_thread=False)
                self._database.executescript(_SCHEMA + f"PRAGMA cache_size = -{CACHE_KIB};")
            finally:
                os.close(handle)
                Path(path).unlink()

    def _row(self, fact: Fact) -> tuple[object, ...]:
        place = fact.place
        return (
            _hash(fact.sop_instance_uid, INSTANCE_BYTES),
            _hash(fact.pixel_digest, VERSION_BYTES),
            self._number(fact.sop_class_uid) if fact.sop_class_uid else None,
            *((self._number(place.topic), place.partition, place.offset) if place else (None, None, None)),
            fact.at_s,
        )

    def _number(self, word: str) -> int:
        return self._numbers.setdefault(word, len(self._numbers))

    def _rows(self, chunk: list[bytes]) -> list[Row]:
        marks = ",".join("?" * len(chunk))
        query = f"SELECT instance, class, topic, partition, place FROM versions WHERE instance IN ({marks})"  # noqa: S608 - only marks
        rows: list[Row] = self._database.execute(query, chunk).fetchall()
        return rows


def _version(row: list[int | None], words: Mapping[int, str], starts: Starts) -> Version | None:
    """None where the scan has left the log."""
    sop_class, topic, partition, place = row
    uid = words[sop_class] if sop_class is not None else ""
    if topic is None or partition is None or place is None:
        return Version(uid, durable=False)
    start = starts.get((words[topic], partition))
    if start is not None and place < start:
        return None
    return Version(uid, durable=bool(uid) and start is not None)


def _hash(text: str, size: int) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=size).digest()


def _chunks(values: list[bytes]) -> Iterator[list[bytes]]:
    return (values[at : at + CHUNK] for at in range(0, len(values), CHUNK))


@contextmanager
def _mapped() -> Iterator[None]:
    """Foreign exceptions stop here."""
    try:
        yield
    except (sqlite3.Error, OSError) as problem:
        raise PeerAway(PEER, type(problem).__name__) from problem
