"""Scans that left their topic unscored: their images are settled as lost, their studies end and say so."""

import threading
import uuid
from collections.abc import Sequence
from typing import Any

from pydantic import SecretStr

from contracts import events
from contracts.events import Closed, Lost, NotAnalysed, StudyEvent
from contracts.findings import ImageOutcome, StudyState
from contracts.hooks import Silent
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.settings import FlaggingSettings, RedisSettings
from launch.clients.redis_call import make_redis, mapped
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import START_S, STUDY, arrived, not_analysed, scored
from tests.test_worker.flagging_store import store_at
from tests.test_worker.test_flagging_timers import Kept
from worker.flagging.audit_out import Audit
from worker.flagging.owner_out import Owner
from worker.flagging.redis_out import RedisView
from worker.flagging.study import Logged, Study
from worker.flagging.timers import LOST_MARGIN_S, gone
from worker.flagging.timers_in import Timers
from worker.flagging.view import Raw

RULES = FlaggingSettings(quiet_s=10.0, deadline_s=300.0)


def lost(before: float | None, lane: Lane = Lane.ROUTINE, partition: int = 0) -> Lost:
    """Scoring's word on what is gone."""
    topic = f"scans.{lane.value}"
    return Lost(lane=lane, topic=topic, partition=partition, first=0, upto=9, before=before, at=START_S)


def study_of(*some: tuple[StudyEvent, float]) -> Study:
    """Events with the seconds after START_S at which they were appended."""
    study = Study(STUDY, RULES)
    for place, (event, after_s) in enumerate(some):
        study.apply(Logged(event, place, START_S + after_s))
    return study


def told(study: Study, lane: Lane, before_s: float, now_s: float = 100.0) -> list[str]:
    """The SOP instances that are told as lost."""
    found = gone([study], {lane: START_S + before_s}, START_S + now_s, 0.0, RULES)
    assert {event.reason for event in found} <= {Reason.RECORD_LOST}
    return [event.sop_instance_uid.rpartition(".")[2] for event in found]


def test_only_images_that_wait_and_came_before_the_loss_are_gone() -> None:
    """Settled ones, later ones and those of the other lane are not; the margin holds until the deadline."""
    study = study_of(
        (arrived(0), 0.0),
        (arrived(1), 1.0),
        (scored(1), 2.0),
        (arrived(2), 50.0 - LOST_MARGIN_S / 2),
        (arrived(3), 51.0),
    )
    assert told(study, Lane.ROUTINE, 50.0) == ["0"]
    assert told(study, Lane.ROUTINE, 50.0, now_s=400.0) == ["0", "2"]
    assert told(study, Lane.STAT, 50.0) == []
    assert gone([study], {}, START_S + 400.0, 0.0, RULES) == []


def test_an_image_that_was_sent_again_is_gone_only_when_every_copy_is() -> None:
    """A later copy, in whatever lane, will be scored."""
    stat = arrived(0).model_copy(update={"lane": Lane.STAT})
    study = study_of((arrived(0), 0.0), (stat, 60.0))
    assert told(study, Lane.ROUTINE, 50.0) == []
    both = {Lane.ROUTINE: START_S + 50.0, Lane.STAT: START_S + 90.0}
    assert len(gone([study], both, START_S + 100.0, 0.0, RULES)) == 1
    again = study_of((arrived(0), 0.0), (arrived(0), 60.0))
    assert told(again, Lane.ROUTINE, 50.0) == []
    assert told(again, Lane.ROUTINE, 90.0) == ["0"]


def test_a_score_that_came_all_the_same_stands_and_a_reason_is_not_replaced() -> None:
    """A zombie's timer, or a scan that was in hand: the word of whoever looked at the image counts, in either order."""
    for event, outcome in ((scored(0), "scored"), (not_analysed(0, Reason.LOCALIZER), "excluded")):
        waiting = study_of((arrived(0), 0.0))
        (gone_event,) = gone([waiting], {Lane.ROUTINE: START_S + 50.0}, START_S + 60.0, 0.0, RULES)
        before = study_of((arrived(0), 0.0), (gone_event, 60.0), (event, 61.0))
        after = study_of((arrived(0), 0.0), (event, 60.0), (gone_event, 61.0))
        for study in (before, after):
            (image,) = study.images.values()
            assert image.item().outcome == outcome
            assert image.settlements == 1
        assert gone_event.key != event.key, "compaction keeps both"


class Log(Kept):
    """A log that keeps what is appended, and can be read from any offset."""

    def __init__(self, some: Sequence[events.AnyEvent]) -> None:
        super().__init__()
        self.values: list[Any] = list(some)

    def append(self, entry: Any) -> Any:
        """Events go to the end of the log."""
        if entry.topic == "events":
            self.values.append(events.decode_any(entry.value))
        return super().append(entry)

    def raws(self, start: int) -> list[Raw]:
        """The records from that offset on, a second apart."""
        return [
            Raw(start + n, START_S + start + n, event.key, events.encode(event))
            for n, event in enumerate(self.values[start:])
        ]


def test_a_study_whose_scans_are_gone_ends_as_record_lost_and_a_rebuild_says_the_same(
    redis_server: RedisServer, monkeypatch: Any
) -> None:
    """Read, settled by the timers once each, closed; then the next owner, and a rebuild from nothing."""
    now: dict[str, float] = {"s": 0.0}
    monkeypatch.setattr("worker.flagging.timers_in.time.monotonic", lambda: now["s"])
    log = Log([arrived(0), arrived(1), scored(1), lost(None), lost(START_S + 9e9, partition=7)])
    settings = RedisSettings(url=SecretStr(redis_server.url), key_prefix=f"t{uuid.uuid4().hex[:8]}:")
    view = RedisView(settings, RULES, make_redis(settings), mapped)

    def run(owner: Owner, *, partitions: int = 1) -> None:
        """Reads to the end, runs the timers, reads what they appended, until nothing is due."""
        at = owner.take(0, partitions=partitions)
        while True:
            owner.apply(log.raws(at), threading.Event())
            at = len(log.values)
            owner.look(at, at)
            now["s"] += 20.0
            for _ in range(3):  # not read back yet: asked once
                owner.tick()
            if len(log.values) == at:
                return

    def owner() -> Owner:
        return Owner(0, view, Audit(log, "audit"), Timers(log, "events", 0, RULES), RULES, Silent())

    with store_at(redis_server.url) as store:
        store.keys = type(store.keys)(settings.key_prefix)
        run(owner())
        kinds = [event.kind for event in log.values[5:]]
        assert kinds == ["not_analysed", "closed"]
        item = store.item()
        assert (item.state, item.reason, item.closed) == (StudyState.NOT_ANALYSED, Reason.RECORD_LOST, True)
        outcomes = [(image.outcome, image.reason, image.settlements) for image in store.images()]
        assert outcomes == [(ImageOutcome.NOT_ANALYSED, Reason.RECORD_LOST, 1), (ImageOutcome.SCORED, None, 1)]
        seen = store.seen()
        second = owner()
        run(second)
        assert second._fold is not None
        assert second._fold.lost == {Lane.ROUTINE: START_S + 3}, "the next owner knows of the loss"
        store.client.delete(*store.client.keys(f"{settings.key_prefix}*"))
        run(owner())
        assert store.seen() == seen
        assert len(log.values) == 7, "a rebuild asks for nothing again"
    view.close()


def test_a_loss_and_its_settling_are_told_to_the_reader_of_a_flagged_study_too() -> None:
    """The flag stays; that a part is lost is a note."""
    loud = [(scored(n, 0.8), 1.0 + n) for n in (0, 1)]
    study = study_of((arrived(0), 0.0), (arrived(1), 0.0), (arrived(2), 0.0), *loud)
    (event,) = gone([study], {Lane.ROUTINE: START_S + 50.0}, START_S + 60.0, 0.0, RULES)
    assert isinstance(event, NotAnalysed)
    study.apply(Logged(event, 20, START_S + 60))
    study.apply(Logged(Closed(study_instance_uid=STUDY, at=0.0, after_offset=20), 21, START_S + 80))
    assert (study.closed, study.assessment.state) == (True, StudyState.FLAGGED)
    assert study.assessment.notes == (Reason.RECORD_LOST,)
