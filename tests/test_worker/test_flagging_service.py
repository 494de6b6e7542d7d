"""Flagging as a service: a real broker, a real store, and both failing."""

import itertools
import time
from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Any

import pytest

from contracts.events import StudyEvent
from contracts.hooks import Happening
from contracts.names import BEAT_S, partition_of
from contracts.reasons import Reason
from contracts.worklist import Change
from launch.clients.kafka_call import ensure_topics
from launch.stack.apache_kafka import ApacheKafka
from launch.stack.redis_server import RedisServer
from launch.stack.tansu import Tansu
from tests.test_worker.flagging_events import LOUD, QUIET, arrived, not_analysed, scored
from tests.test_worker.flagging_running import Site, site, uids, wait_until
from tests.test_worker.test_flagging_poison import failing_at
from worker.flagging.owner_out import Owner

pytestmark = pytest.mark.stack

A, B = uids()


def images(study: str, *loud: int, count: int = 4) -> list[StudyEvent]:
    """Arrivals and scores of a study, one image after the other, now."""
    pairs = ((arrived(n, study=study), scored(n, LOUD if n in loud else QUIET, study=study)) for n in range(count))
    return [event.model_copy(update={"at": time.time()}) for event in itertools.chain.from_iterable(pairs)]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A store that a test may stop."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.close()


@pytest.fixture
def here(broker: str, redis_server: RedisServer, topic_prefix: str) -> Iterator[Site]:
    """Topics on each broker in turn; nothing closes by itself."""
    with site(broker, redis_server.url, topic_prefix) as made:
        ensure_topics(made.settings.kafka, made.hooks)
        yield made


@pytest.fixture
def embedded(tansu: str, redis_server: RedisServer, topic_prefix: str) -> Iterator[Site]:
    """As ``here``, on the embedded broker alone: for what does not depend on the broker."""
    with site(tansu, redis_server.url, topic_prefix) as made:
        ensure_topics(made.settings.kafka, made.hooks)
        yield made


def test_a_flag_reaches_the_queue_while_the_study_is_still_arriving(here: Site) -> None:
    """The bleeding study, sent second, stands first; changes are told live, counted and audited once each."""
    with here.running():
        here.append(*images(A), *images(B, 1, 2))
        wait_until(lambda: here.state(A) == ("receiving", False), "A is received")
        wait_until(lambda: here.state(B) == ("flagged", False), "B is flagged")
        item = here.item(B)
        assert item is not None
        assert (item.provisional, item.findings[0].name) == (True, "intraparenchymal")
        wait_until(lambda: (one := here.item(B)) and one.images_settled == 4, "all of B is settled")
        assert here.client.zrange(here.keys.queue, 0, -1) == [B.encode(), A.encode()]
        assert sorted(here.told()) == ["flagged", "received", "received"]
        wait_until(here.ready, "both partitions are ready")
    assert here.hooks.count(Happening.FLAGGED) == 1
    (seconds,) = [value for name, value, _ in here.hooks.told if name is Happening.TIME_TO_FLAG_SECONDS]
    assert 0 <= seconds < 60
    audit = [(record["key"], record["change"]) for record in here.audit()]
    assert sorted(audit) == sorted([(A, "received"), (B, "received"), (B, "flagged")])


def test_an_emptied_store_is_rebuilt_to_the_same_view_and_nothing_is_announced_again(here: Site) -> None:
    """FLUSHALL in mid-study: same rows, images, history and order; no second ``flagged``, live, counted or audited."""
    with here.running():
        here.append(*images(A), *images(B, 1, 2))
        wait_until(lambda: all((one := here.item(uid)) and one.images_settled == 4 for uid in (A, B)), "all settled")
        wait_until(here.ready, "ready")
        before = [here.view(uid) for uid in (A, B)]
        time.sleep(1.0)  # the watermark is committed
        for key in here.client.keys(f"{here.keys.prefix}*"):
            here.client.delete(key)
        wait_until(lambda: here.ready() and [here.view(uid) for uid in (A, B)] == before, "the view is back")
        assert here.told() == []
        here.append(arrived(9, study=B), scored(9, LOUD, study=B))
        wait_until(lambda: (one := here.item(B)) and one.images_settled == 5, "goes on")
    assert here.hooks.count(Happening.FLAGGED) == 1
    assert [record["change"] for record in here.audit()].count("flagged") == 1


def test_an_older_store_is_brought_forward_from_where_it_stands(embedded: Site) -> None:
    """A failover to a replica that missed the last writes: flagging notices, goes back and catches up."""
    with embedded.running():
        embedded.append(*images(B, 1, 2, count=2))
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 2, "half settled")
        wait_until(embedded.ready, "ready")
        older = {key: embedded.client.dump(key) for key in embedded.client.keys(f"{embedded.keys.prefix}*")}
        embedded.append(*images(B, 1, 2)[4:])
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 4, "all settled")
        before = embedded.view(B)
        pipeline = embedded.client.pipeline(transaction=True)
        for key, value in older.items():
            pipeline.restore(key, 0, value, replace=True)
        pipeline.execute()
        wait_until(lambda: embedded.view(B) == before, "brought forward")


def test_a_killed_process_goes_on_where_the_store_stands(here: Site, tmp_path: Path) -> None:
    """Killed with -9 in mid-study, events while nobody reads, start again: every image settled once, one flag told."""
    process = here.process(tmp_path)
    try:
        here.append(*images(B, 1, 2)[:5])
        wait_until(lambda: (one := here.item(B)) and one.images_received == 3, "first half is in the view")
    finally:
        process.kill()
        process.wait()
    here.append(*images(B, 1, 2)[5:])
    with here.running():
        wait_until(lambda: (one := here.item(B)) and one.images_settled == 4, "all settled")
        assert [image.item.settlements for image in here.images(B)] == [1, 1, 1, 1]
        assert here.told() == ["received", "flagged"]
        assert [entry.change for entry in here.history(B)] == [Change.RECEIVED, Change.FLAGGED]


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(
    tansu: str, own_redis: RedisServer, topic_prefix: str
) -> None:
    """The store is killed in mid-study and comes back seconds later: all events are in the view, flagged told once."""
    with site(tansu, own_redis.url, topic_prefix) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running() as thread:
            here.append(*images(A, count=2))
            wait_until(lambda: here.state(A), "A is in the view")
            own_redis.kill()
            here.append(*images(B, 1, 2))
            time.sleep(3.0)
            assert thread.is_alive()
            own_redis.start()
            wait_until(lambda: here.state(B) == ("flagged", False), "B is flagged after the outage")
            wait_until(lambda: (one := here.item(A)) and one.images_settled == 2, "A is whole")
            assert here.told().count("flagged") == 1
        assert [record["change"] for record in here.audit() if record["key"] == B].count("flagged") == 1


def test_a_study_closes_after_its_quiet_period_and_a_late_image_opens_it_again(
    broker: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Closed by an event that the timer appended; reopened, flagged and closed again by the same rules."""
    with site(broker, redis_server.url, topic_prefix, quiet_s=1.0) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running():
            here.append(*images(A, 3)[:-1])
            wait_until(lambda: (one := here.item(A)) and one.images_received == 4, "received")
            time.sleep(2.0)
            assert here.state(A) == ("receiving", False), "an unsettled image keeps the study open"
            here.append(scored(3, LOUD, study=A))
            wait_until(lambda: here.state(A) == ("not_flagged", True), "closed")
            here.append(arrived(4, study=A), scored(4, LOUD, study=A))
            wait_until(lambda: here.state(A) == ("flagged", True), "flagged and closed again")
            changes = [entry.change.value for entry in here.history(A)]
            assert changes == ["received", "closed", "revised", "flagged", "closed"]
            assert here.told() == changes


def test_a_study_without_any_scorer_is_told_as_delayed_at_its_deadline_and_revised_later(
    broker: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Every scoring worker is dead: not analysed (delayed), never silently waiting; the score revises it."""
    with site(broker, redis_server.url, topic_prefix, quiet_s=0.5, deadline_s=1.5) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running():
            here.append(arrived(0, study=A))
            wait_until(lambda: (one := here.item(A)) and one.reason is Reason.DELAYED, "delayed")
            assert here.state(A) == ("not_analysed", False)
            here.append(scored(0, study=A))
            wait_until(lambda: here.state(A) == ("not_flagged", True), "revised and closed")
        assert here.hooks.count(Happening.STUDY_EXPIRED) == 1


def test_deadlines_and_quiet_periods_survive_a_restart(
    tansu: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Whoever owns the partition next closes what was open: it is found in the store, without a new event."""
    with site(tansu, redis_server.url, topic_prefix) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running():
            here.append(*images(A, count=2))
            wait_until(lambda: (one := here.item(A)) and one.images_settled == 2, "settled")
        hasty = here.settings.flagging.model_copy(update={"quiet_s": 0.5})
        here.settings = here.settings.model_copy(update={"flagging": hasty})
        with here.running():
            wait_until(lambda: here.state(A) == ("not_flagged", True), "closed after the restart")


def test_a_withdrawn_flag_leaves_an_audit_trail(embedded: Site) -> None:
    """A newer model's answer takes the flag back: live, in the history and on the audit topic, with its offset."""
    with embedded.running():
        embedded.append(*images(B, 1, 2))
        wait_until(lambda: embedded.state(B) == ("flagged", False), "flagged")
        offset = embedded.append(scored(1, QUIET, study=B, version="2"))
        wait_until(lambda: embedded.state(B) == ("receiving", False), "withdrawn")
        assert embedded.told() == ["received", "flagged", "withdrawn"]
    (record,) = [record for record in embedded.audit() if record["change"] == "withdrawn"]
    assert (record["key"], record["offset"], record["state"]) == (B, offset, "receiving")
    assert record["models"] == ["head_ct_lesion:1", "head_ct_lesion:2"]


def test_an_unreadable_event_makes_its_study_not_analysed_and_stops_nobody(embedded: Site) -> None:
    """Garbage under a study's key: the study says so, the next study is flagged as ever."""
    with embedded.running():
        embedded.append(*images(A, count=2))
        embedded.append_raw(A, f"{A}|scored|x".encode(), b"\xff not an event")
        embedded.append_raw(A, b"no study at all", b"{}")
        embedded.append(*images(B, 1, 2))
        wait_until(lambda: (one := embedded.item(A)) and one.reason is Reason.RECORD_UNREADABLE, "told")
        wait_until(lambda: embedded.state(B) == ("flagged", False), "B is flagged")
    assert embedded.hooks.count(Happening.EVENT_UNREADABLE) == 2


def test_flagging_goes_on_where_our_own_code_fails_at_an_event(embedded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its study says that a record could not be read; another study of the same partition is flagged; one fault."""
    partitions = embedded.log.partitions
    beside = next(f"{A}.{n}" for n in range(99) if partition_of(f"{A}.{n}", partitions) == partition_of(A, partitions))
    embedded.append(*images(A, count=2))
    failing_at(monkeypatch, A, {embedded.append(scored(2, study=A))})
    embedded.append(*images(beside, 1, 2))
    with embedded.running():
        wait_until(lambda: embedded.state(beside) == ("flagged", False), "the other study is flagged")
        wait_until(lambda: (one := embedded.item(A)) and one.reason is Reason.RECORD_UNREADABLE, "told")
    assert [labels["where"] for name, _, labels in embedded.hooks.told if name is Happening.FAULT] == ["folding"]


@pytest.mark.parametrize("step", ["beat", "tick", "look"])
def test_a_partition_at_which_our_own_code_fails_is_taken_anew(
    embedded: Site, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Neither the process nor the other partitions end; when the fault is over its studies are flagged."""
    broken = [partition_of(A, embedded.log.partitions)]
    sound = getattr(Owner, step)

    def failing(self: Owner, *given: Any) -> Any:
        if self.number in broken:
            raise OverflowError
        return sound(self, *given)

    monkeypatch.setattr(Owner, step, failing)
    with embedded.running() as thread:
        wait_until(lambda: embedded.hooks.count(Happening.FAULT) > 0, "the fault is counted")
        broken.clear()
        embedded.append(*images(A, 1, 2))
        wait_until(lambda: embedded.state(A) == ("flagged", False), "A is flagged")
        assert thread.is_alive()


def test_failed_and_out_of_scope_images_are_told_with_their_reason(
    tansu: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Through the whole service: a failed image at once, an out-of-scope study when it closes."""
    with site(tansu, redis_server.url, topic_prefix, quiet_s=0.5) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running():
            here.append(arrived(0, study=A), not_analysed(0, Reason.PIXELS_UNDECODABLE, study=A))
            here.append(arrived(0, study=B), not_analysed(0, Reason.MODALITY_OUT_OF_SCOPE, study=B))
            wait_until(lambda: here.state(A) == here.state(B) == ("not_analysed", True), "both closed")
            reasons = [(one := here.item(uid)) and one.reason for uid in (A, B)]
            assert reasons == [Reason.PIXELS_UNDECODABLE, Reason.MODALITY_OUT_OF_SCOPE]


@pytest.mark.kafka
@pytest.mark.parametrize("cooperative", [True, False], ids=["cooperative", "eager"])
def test_a_second_process_shares_the_partitions_and_takes_over_what_a_killed_one_had(
    kafka_broker: str, redis_server: RedisServer, topic_prefix: str, tmp_path: Path, *, cooperative: bool
) -> None:
    """Partitions change hands twice in mid-study: every image settled once, each change told and audited once."""
    with site(kafka_broker, redis_server.url, topic_prefix, cooperative=cooperative) as here:
        ensure_topics(here.settings.kafka, here.hooks)
        with here.running():
            here.append(*images(A, count=2), *images(B, 1, 2, count=2))
            wait_until(lambda: here.state(A) and here.state(B), "both are in the view")
            process = here.process(tmp_path)
            try:
                wait_until(lambda: here.assigned() == 1 and here.ready(), "each has one partition")
                ended = {labels["partition"] for _, value, labels in list(here.hooks.told) if isnan(value)}
                assert ended >= {"0"} or ended >= {"1"}, "the lag of the partition given away is told by its new owner"
                here.append(*images(A)[4:], *images(B, 1, 2)[4:6])
                wait_until(lambda: here.state(B) == ("flagged", False), "B is flagged by whoever has it")
            finally:
                process.kill()
                process.wait()
            here.append(*images(B, 1, 2)[6:])
            wait_until(lambda: all((one := here.item(uid)) and one.images_settled == 4 for uid in (A, B)), "taken over")
            assert sorted(here.told()) == ["flagged", "received", "received"]
        assert sorted(record["change"] for record in here.audit()) == ["flagged", "received", "received"]


def test_a_store_written_by_another_version_is_built_anew(embedded: Site) -> None:
    """What cannot be read is no reason to stop, nor to lose images: the partition is rebuilt from the log."""
    embedded.append(*images(B, 1, 2)[:4])
    with embedded.running():
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 2, "half settled")
    embedded.client.hset(embedded.keys.study(B), "fold", '{"epoch": 0, "of_another_version": true}')
    embedded.append(*images(B, 1, 2)[4:])
    with embedded.running():
        wait_until(lambda: embedded.state(B) == ("flagged", False), "flagged, with the images of before")
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 4, "all settled")
    assert embedded.hooks.count(Happening.FLAGGED) == 1


@pytest.mark.parametrize("part", ["images", "frames"])
def test_a_study_that_the_store_evicted_in_part_is_built_anew(embedded: Site, part: str) -> None:
    """A store short of memory drops single keys: what is left of a study must not be taken for all of it."""
    embedded.append(*images(B, 1, 2)[:4])
    with embedded.running():
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 2, "half settled")
    embedded.client.delete(getattr(embedded.keys, part)(B))
    embedded.append(*images(B, 1, 2)[4:])
    with embedded.running():
        wait_until(lambda: (one := embedded.item(B)) and one.images_settled == 4, "all settled")
        assert embedded.state(B) == ("flagged", False)
        assert len(embedded.images(B)) == 4


@pytest.mark.parametrize("grown", [0, 6], ids=["shorter", "longer"])
def test_a_broker_that_lost_its_log_leaves_the_known_studies_and_goes_on(here: Site, grown: int) -> None:
    """A memory-only broker was restarted: its offsets begin at 0, and may have grown past what the store has seen."""
    here.append(*images(B, 1, 2))
    with here.running():
        wait_until(lambda: here.state(B) == ("flagged", False), "flagged")
        wait_until(lambda: (one := here.item(B)) and one.images_settled == 4, "all settled")
    kafka = here.settings.kafka.model_copy(update={"topic_prefix": f"{here.settings.kafka.topic_prefix}new."})
    here.settings = here.settings.model_copy(update={"kafka": kafka})
    ensure_topics(here.settings.kafka, here.hooks)
    here.append(*images(B, count=10)[8 : 8 + 2 * grown])  # the images numbered from 4 on
    with here.running():
        here.append(arrived(17, study=B), scored(17, LOUD, study=B))
        settled = 5 + grown
        wait_until(lambda: (one := here.item(B)) and one.images_settled == settled, "the new images are added")
        wait_until(here.ready, "ready")
    faults = {labels["where"] for name, _, labels in here.hooks.told if name is Happening.FAULT}
    assert faults == {"log_replaced"}
    assert here.state(B) == ("flagged", False)
    assert {image.item.settlements for image in here.images(B)} == {1}


def test_it_is_ready_once_its_view_is_complete_and_says_how_its_peers_are(embedded: Site) -> None:
    """Not before it has partitions and has read them; then broker and store are up."""
    with embedded.running():
        assert embedded.service is not None
        assert not embedded.service.ready()
        wait_until(embedded.service.ready, "ready", wait_s=18.0)  # below the grace that would call it ready anyway
        assert embedded.ready()
        assert embedded.service.peers() == {"kafka": "up", "redis": "up"}
    assert not embedded.service.ready()


def test_owners_fall_silent_while_the_broker_is_away(
    redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    """Nothing can be heard of new images then: a view that goes on saying *ready* would look complete."""
    server = Tansu(tmp_path)
    server.start()
    with site(server.bootstrap, redis_server.url, topic_prefix) as here, here.running():
        wait_until(here.ready, "ready")
        server.kill()
        wait_until(lambda: here.service and here.service.peers()["kafka"] == "away", "known to be away")
        time.sleep(BEAT_S)
        last = here.client.hget(here.keys.partition(0), "beat")
        time.sleep(2 * BEAT_S)
        assert here.client.hget(here.keys.partition(0), "beat") == last


@pytest.mark.kafka
def test_a_broker_that_is_killed_and_returns_is_waited_for(
    redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> None:
    """No consumer, no log for seconds: the service stays, and reads on where the store stands."""
    server = ApacheKafka(tmp_path)
    server.start()
    try:
        with site(server.bootstrap, redis_server.url, topic_prefix) as here:
            ensure_topics(here.settings.kafka, here.hooks)
            with here.running() as thread:
                here.append(*images(B, 1, 2)[:4])
                wait_until(lambda: (one := here.item(B)) and one.images_settled == 2, "half settled")
                server.kill()
                time.sleep(3.0)
                assert thread.is_alive()
                server.start()
                here.append(*images(B, 1, 2)[4:])
                wait_until(lambda: here.state(B) == ("flagged", False), "goes on")
                wait_until(lambda: (one := here.item(B)) and one.images_settled == 4, "all settled")
                assert here.told() == ["received", "flagged"]
    finally:
        server.close()
