"""Names of topics, consumer groups and Redis keys: every name in one file.

No name ever holds patient data: StudyInstanceUIDs are the only identifiers in keys (design decision 11).
"""

from dataclasses import dataclass
from enum import StrEnum
from zlib import crc32


class Lane(StrEnum):
    """Kafka has no priorities, so urgency by order (not by finding) is two topics."""

    STAT = "stat"
    ROUTINE = "routine"


@dataclass(frozen=True, slots=True)
class Topics:
    """Topic names below an optional prefix, so that several sites or tests can share one cluster."""

    prefix: str = ""

    @property
    def stat(self) -> str:
        """Scans that are scored first."""
        return f"{self.prefix}scans.stat"

    @property
    def routine(self) -> str:
        """Scans that are scored after stat, but never starved."""
        return f"{self.prefix}scans.routine"

    @property
    def events(self) -> str:
        """Everything known about studies; compacted; the truth (design decision 3)."""
        return f"{self.prefix}study.events"

    @property
    def dead(self) -> str:
        """Scans that could not be scored through a fault of their own."""
        return f"{self.prefix}scans.dead"

    @property
    def audit(self) -> str:
        """State changes and people's decisions; never compacted."""
        return f"{self.prefix}study.audit"

    @property
    def commitments(self) -> str:
        """Storage commitments asked for and not yet reported (PS3.4 Annex J); compacted, tombstoned when reported."""
        return f"{self.prefix}commitments"

    def lane(self, lane: Lane) -> str:
        """The scan topic of a lane."""
        return self.stat if lane is Lane.STAT else self.routine

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic, in the order of the data."""
        return (self.stat, self.routine, self.events, self.dead, self.audit, self.commitments)


SCORING_GROUP = "triage-scoring"
FLAGGING_GROUP = "triage-flagging"
COMMITMENT_GROUP = "triage-commitment"

BEAT_S = 2.0  # how often the owner of a partition says in Redis that it lives; well below worklist.stale_s


def partition_of(study_instance_uid: str, partitions: int) -> int:
    """The one partition of every topic that a study lives in (CRC-32, as librdkafka's ``consistent``)."""
    return crc32(study_instance_uid.encode("ascii", "surrogateescape")) % partitions


@dataclass(frozen=True, slots=True)
class RedisKeys:
    """Redis keys below an optional prefix. Written by flagging alone (design decision 6).

    ==========================  ===========  ==============================================================
    key                         type         holds
    ==========================  ===========  ==============================================================
    ``queue``                   sorted set   StudyInstanceUID by rank (epoch seconds): the reading order
    ``study:<uid>``             hash         ``item`` (JSON WorklistItem), ``offset`` (of its last event),
                                             ``partition``, ``fold`` (flagging alone)
    ``images:<uid>``            hash         ``<sop>|<pixel digest>`` → JSON contracts.worklist.StoredImage
    ``history:<uid>``           list         JSON contracts.worklist.HistoryEntry, in the order of the log
    ``partition:<n>``           hash         ``offset`` (next to apply), ``status`` (ready | rebuilding),
                                             ``target`` (log end to reach before ready), ``beat`` (epoch
                                             seconds by Redis's own TIME, every BEAT_S), ``owner``, ``epoch``,
                                             ``clock`` (the broker's time as its owner knows it), ``backlog``
                                             (JSON contracts.worklist.Backlog, as old as the beat), ``log``
                                             (the id of the topic that offsets belong to), ``lost`` (JSON: lane
                                             → scans appended before that are gone), ``run`` and ``evicted``
                                             (the store's run_id and evicted_keys that the owner has seen: with
                                             others nobody has looked yet whether the view is whole)
    ``changes``                 stream       live changes: ``event`` (Change), ``uid``, ``item`` (JSON
                                             WorklistItem, position 0), ``offset``; capped
    ``frames:<uid>``            hash         flagging alone: what the fold keeps of each frame
    ``partitions``              string       how many partitions the topics really have, whatever a setting says
    ``open:<n>``                set          flagging alone: studies of a partition that are not closed
    ``leaving``                 sorted set   flagging alone: closed studies by the time they leave
    ==========================  ===========  ==============================================================

    A study is written whole in one script, so its keys agree. A uid in ``queue`` whose ``study`` hash is gone has
    just left: skip it. ``partition:<n>`` missing means that nobody has built that part of the view yet.
    """

    prefix: str = "triage:"

    @property
    def queue(self) -> str:
        """The reading order."""
        return f"{self.prefix}queue"

    @property
    def changes(self) -> str:
        """The live changes."""
        return f"{self.prefix}changes"

    def study(self, study_instance_uid: str) -> str:
        """One study's item and source offset."""
        return f"{self.prefix}study:{study_instance_uid}"

    def images(self, study_instance_uid: str) -> str:
        """One study's images, as the fold keeps them."""
        return f"{self.prefix}images:{study_instance_uid}"

    @property
    def partitions(self) -> str:
        """The partition count of the topics."""
        return f"{self.prefix}partitions"

    def partition(self, number: int) -> str:
        """How far the view of one partition has come."""
        return f"{self.prefix}partition:{number}"

    def history(self, study_instance_uid: str) -> str:
        """One study's changes, in the order of the log."""
        return f"{self.prefix}history:{study_instance_uid}"

    def frames(self, study_instance_uid: str) -> str:
        """What the fold keeps of each frame of a study."""
        return f"{self.prefix}frames:{study_instance_uid}"

    def open(self, number: int) -> str:
        """The studies of one partition that are not closed."""
        return f"{self.prefix}open:{number}"

    @property
    def leaving(self) -> str:
        """Closed studies by the time they leave the view."""
        return f"{self.prefix}leaving"
