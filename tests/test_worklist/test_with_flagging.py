"""The worklist on the view that flagging really writes: events on a real broker in, answers over HTTP out."""

import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.settings import Settings, WorklistSettings
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import CERTAIN, arrived, scored
from tests.test_worker.flagging_running import Site, site, uids
from tests.test_worklist.conftest import Served, serving, until
from tests.test_worklist.test_serve import Listener
from worklist.answers import StudyAnswer, WorklistAnswer

FLAGGING_START_S = 90.0  # Tansu needs up to 11 s to give a group's partitions to a new member, a busy machine longer


def _settings(of: Site) -> Settings:
    """The worklist's own idea of the partition count is wrong, as where topics were made with another."""
    kafka = of.settings.kafka.model_copy(update={"partitions": 24})
    return of.settings.model_copy(update={"kafka": kafka, "worklist": WorklistSettings(port=0)})


def _list(served: Served) -> WorklistAnswer:
    return WorklistAnswer.model_validate_json(served.get("/v1/worklist").text)


def _order(answer: WorklistAnswer) -> list[str]:
    return [one.study_instance_uid for one in answer.items]


def _study(served: Served, uid: str) -> StudyAnswer | None:
    try:
        return StudyAnswer.model_validate_json(served.get(f"/v1/studies/{uid}").text)
    except ValidationError:
        return None


@pytest.mark.stack
def test_a_flag_jumps_to_the_top_and_survives_an_emptied_store(
    tansu: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Two studies arrive; the later one is flagged and stands first, live; an emptied store comes back the same, and
    no answer in between is `ok` without a study; the flag is not announced again.
    """
    calm, bleeding = uids(2)
    with site(tansu, redis_server.url, topic_prefix) as of, of.running(), serving(_settings(of)) as served:
        until("an empty list that is ok", lambda: _list(served).status == "ok", FLAGGING_START_S)
        listener = Listener(served)
        of.append(*(arrived(n, study=calm) for n in range(3)), *(arrived(n + 10, study=bleeding) for n in range(3)))
        until("both are listed", lambda: _order(_list(served)) == [calm, bleeding])
        of.append(*(scored(n, study=calm) for n in range(3)))
        of.append(*(scored(n + 10, CERTAIN, study=bleeding) for n in range(3)))
        until("the flag is told live", lambda: ("flagged", bleeding) in listener.told)
        until("the flag stands first", lambda: _order(_list(served)) == [bleeding, calm])
        before = until("all settled", lambda: (s := _study(served, bleeding)) and s.images_settled == 3 and s)
        assert [image.settlements for image in before.images] == [1, 1, 1]
        assert before.history
        assert next(one["data"]["position"] for one in listener.heard if one["event"] == "flagged") == 1

        redis_server_flush(of)
        while (answer := _list(served)).status != "ok":
            assert served.get(f"/v1/studies/{bleeding}").status_code in {200, 503}, "never a confident no"
        assert _order(answer) == [bleeding, calm]
        after = _study(served, bleeding)
        assert after is not None
        assert after.model_copy(update={"backlog": before.backlog}) == before
        assert listener.told.count(("flagged", bleeding)) == 1
        assert "reset" in [one["event"] for one in listener.heard]


def redis_server_flush(of: Site) -> None:
    """Empties this test's part of the shared store at one instant."""
    script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end"
    of.client.eval(script, 0, f"{of.keys.prefix}*")


@pytest.mark.stack
def test_a_store_that_comes_back_with_less_is_never_ok_before_it_is_whole(
    tansu: str, topic_prefix: str, tmp_path: Path
) -> None:
    """Killed, its file cut in half, started again: until flagging has looked and caught up, no answer is `ok`."""
    calm, bleeding = uids(2)
    server = RedisServer(tmp_path)
    server.start()
    try:
        with site(tansu, server.url, topic_prefix) as of, of.running(), serving(_settings(of)) as served:
            until("an empty list that is ok", lambda: _list(served).status == "ok", FLAGGING_START_S)
            of.append(*(arrived(n, study=calm) for n in range(3)), *(scored(n, study=calm) for n in range(3)))
            of.append(
                *(arrived(n, study=bleeding) for n in range(3)), *(scored(n, CERTAIN, study=bleeding) for n in range(3))
            )
            until("the flag stands first", lambda: _order(_list(served)) == [bleeding, calm])
            before = until("all settled", lambda: _whole(served, calm, bleeding))
            server.kill()
            assert _list(served).status == "degraded"
            (aof,) = (server.folder / "appendonlydir").glob("*.incr.aof")
            with aof.open("r+b") as file:
                file.truncate(aof.stat().st_size // 2)
            server.start()
            while (answer := _list(served)).status != "ok":
                assert answer.status in {"rebuilding", "degraded"}
            assert _order(answer) == [bleeding, calm]
            assert _whole(served, calm, bleeding) == before
    finally:
        server.close()


def _whole(served: Served, *studies: str) -> list[StudyAnswer] | None:
    found = [study for uid in studies if (study := _study(served, uid)) and study.images_settled == 3]
    known = [one.model_copy(update={"backlog": None}) for one in found if one.status == "ok"]
    return known if len(known) == len(studies) else None


@pytest.mark.stack
def test_list_and_study_say_how_far_analysis_is_behind(
    tansu: str, redis_server: RedisServer, topic_prefix: str
) -> None:
    """Images that wait and the oldest one's age, as time goes by; nothing waits any more when all are settled."""
    calm, other = uids(2)
    with site(tansu, redis_server.url, topic_prefix) as of, of.running(), serving(_settings(of)) as served:
        until("all partitions tell", lambda: (b := _list(served).backlog) and b.complete, FLAGGING_START_S)
        early = time.time() - 60.0  # a producer's word, borne out by the broker's clock within two minutes
        of.append(*(arrived(n, study=calm).model_copy(update={"at": early}) for n in range(3)), arrived(0, study=other))
        until("four wait", lambda: (b := _list(served).backlog) and b.images == 4)
        first = _list(served).backlog
        assert first is not None
        assert first.oldest_s is not None
        assert 60.0 <= first.oldest_s < 120.0
        assert first.complete
        until(
            "time goes by", lambda: (b := _list(served).backlog) and (b.oldest_s or 0.0) > (first.oldest_s or 0.0) + 1.0
        )
        study = _study(served, calm)
        assert study is not None
        assert study.backlog is not None
        assert study.backlog.images == 4
        of.append(*(scored(n, study=calm) for n in range(3)), scored(0, study=other))
        until("nothing waits", lambda: (b := _list(served).backlog) and (b.images, b.oldest_s) == (0, None))
