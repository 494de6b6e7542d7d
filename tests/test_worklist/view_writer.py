"""Writes a view as contracts/names.py describes it: what flagging does, without flagging."""

from collections.abc import Iterable, Sequence
from typing import Any

import redis

from contracts.findings import Finding, ImageOutcome, Label, Patient, ReadingState, StudyState, Urgency
from contracts.names import RedisKeys
from contracts.worklist import Backlog, Change, HistoryEntry, ImageItem, PartitionStatus, StoredImage, WorklistItem

PARTITIONS = 4
ARRIVED = 1_790_000_000.0
PATIENT = Patient(name="Specimen^Alice", patient_id="PID-4711", issuer="HOSP", birth_date="19500101", sex="F")
PATIENT_WORDS = ("Specimen", "PID-4711", "19500101", "ACC-", "Described^head")


def item(
    uid: str,
    *,
    rank: float = ARRIVED,
    state: StudyState = StudyState.RECEIVING,
    urgency: Urgency = Urgency.ROUTINE,
    images: int = 3,
) -> WorklistItem:
    """A study as flagging stores it."""
    flagged = state is StudyState.FLAGGED
    found = Finding(
        name=Label.INTRAPARENCHYMAL, probability=0.97, volume_ml=12.5, sop_instance_uids=(f"{uid}.1", f"{uid}.2")
    )
    return WorklistItem(
        study_instance_uid=uid,
        accession_number=f"ACC-{uid}",
        patient=PATIENT,
        study_description="Described^head",
        modality="CT",
        state=state,
        provisional=flagged,
        reading_state=ReadingState.UNCLAIMED,
        urgency=urgency,
        findings=(found,) if flagged else (),
        images_received=images,
        images_settled=images - 1,
        arrived_at=ARRIVED,
        due_at=ARRIVED + 600,
        rank=rank,
        flagged_at=ARRIVED + 2 if flagged else None,
        models=("head_ct_lesion 1",),
    )


class Writer:
    """The one writer of a test's view."""

    def __init__(self, url: str, prefix: str) -> None:
        self.client = redis.Redis.from_url(url)
        self.keys = RedisKeys(prefix)

    def ready(self, partitions: Iterable[int] = range(PARTITIONS), *, silent_s: float = 0.0) -> None:
        """Every partition's owner reports, by Redis's own clock."""
        for number in partitions:
            self.partition(number, PartitionStatus.READY, silent_s=silent_s)

    def partition(
        self, number: int, status: PartitionStatus, *, silent_s: float = 0.0, backlog: Backlog | None = None
    ) -> None:
        """One owner reports, having seen this life of the store."""
        seconds, micros = self.client.time()
        life: Any = self.client.info()
        state: Any = {
            "offset": 0,
            "status": status.value,
            "target": 0,
            "beat": seconds + micros / 1e6 - silent_s,
            "backlog": (backlog or Backlog()).model_dump_json(),
            "run": life["run_id"],
            "evicted": life["evicted_keys"],
        }
        self.client.hset(self.keys.partition(number), mapping=state)

    def put(self, study: WorklistItem, change: Change | None = None) -> str | None:
        """Stores a study; announces a change if one is given and returns its id."""
        with self.client.pipeline(transaction=True) as pipeline:
            keys, uid = self.keys, study.study_instance_uid
            pipeline.hset(keys.study(uid), mapping={"item": study.model_dump_json(), "offset": 7, "partition": 0})
            pipeline.zadd(keys.queue, {uid: study.rank})
            if change:
                fields: dict[Any, Any] = {
                    "event": change.value,
                    "uid": uid,
                    "item": study.model_dump_json(),
                    "offset": 7,
                }
                pipeline.xadd(keys.changes, fields)
            answers = pipeline.execute()
        return answers[-1].decode() if change else None

    def put_all(self, studies: Sequence[WorklistItem]) -> None:
        """Stores many studies in one round trip."""
        with self.client.pipeline(transaction=False) as pipeline:
            for study in studies:
                uid = study.study_instance_uid
                pipeline.hset(self.keys.study(uid), mapping={"item": study.model_dump_json()})
                pipeline.zadd(self.keys.queue, {uid: study.rank})
            pipeline.execute()

    def detail(self, uid: str) -> None:
        """Gives a study two images, stored out of order, and a history of two changes."""
        rows = (
            ("2", ARRIVED + 1, ImageOutcome.SCORED, 1),
            ("1", ARRIVED, None, 0),
        )
        for tail, arrived_at, outcome, settlements in rows:
            row = ImageItem(
                sop_instance_uid=f"{uid}.{tail}", digest="d" + tail, outcome=outcome, settlements=settlements
            )
            stored = StoredImage(item=row, pixel_digest="p" + tail, arrived_at=arrived_at)
            self.client.hset(self.keys.images(uid), f"{uid}.{tail}|p{tail}", stored.model_dump_json())
        for offset, change in ((3, Change.RECEIVED), (9, Change.FLAGGED)):
            entry = HistoryEntry(
                at=ARRIVED + offset,
                offset=offset,
                change=change,
                state=StudyState.FLAGGED,
                provisional=True,
                urgency=Urgency.CRITICAL,
            )
            self.client.rpush(self.keys.history(uid), entry.model_dump_json())

    def order(self) -> list[str]:
        """StudyInstanceUIDs as the store orders them."""
        members: list[Any] = self.client.zrange(self.keys.queue, 0, -1)
        return [uid.decode() for uid in members]

    def remove(self, uid: str) -> None:
        """The study leaves."""
        self.client.delete(self.keys.study(uid))
        self.client.zrem(self.keys.queue, uid)

    def empty(self) -> None:
        """The store loses everything."""
        self.client.flushall()
