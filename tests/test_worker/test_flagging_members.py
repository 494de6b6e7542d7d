"""Two flagging workers on Apache Kafka: one is killed, stopped beyond its session and woken again, or replaced."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contracts.events import StudyEvent
from contracts.reasons import Reason
from contracts.worklist import Change
from launch.clients.kafka_call import ensure_topics
from launch.stack.redis_server import RedisServer
from tests.test_worker.flagging_events import LOUD, QUIET, arrived, scored
from tests.test_worker.flagging_running import Site, site, uids, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.stack, pytest.mark.timeout(600)]

STUDIES = uids(each=3)
IMAGES = 6
SESSION_S = 6.0  # the setting's default
PATIENCE_S = 90.0  # a busy machine; nothing here measures speed
NAPS = 10  # one in two sleepers tries to write as it wakes


@dataclass
class Worker:
    """``triage worker --role flagging`` as a process of its own."""

    process: "subprocess.Popen[bytes]"
    folder: Path

    def told(self, event: str) -> list[dict[str, Any]]:
        """Its log lines of that event."""
        lines = (self.folder / "worker.log").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [one for one in found if one.get("event") == event]

    def holds(self) -> int:
        """How many partitions it said it has."""
        said = self.told("partitions_assigned")
        return int(said[-1]["value"]) if said else 0

    def send(self, number: signal.Signals) -> None:
        """A signal to this process alone."""
        os.kill(self.process.pid, number)


@contextmanager
def workers(here: Site, folder: Path, count: int = 2) -> Iterator[list[Worker]]:
    """So many workers that share the partitions; killed at the end."""
    started: list[Worker] = []
    try:
        for n in range(count):
            home = folder / f"worker-{n}"
            home.mkdir()
            started.append(Worker(here.process(home), home))
        wait_until(lambda: [one.holds() for one in started] == [1] * count, "each has its partition", PATIENCE_S)
        wait_until(here.ready, "the view is ready", PATIENCE_S)
        yield started
    finally:
        for one in started:
            one.process.kill()
            one.process.wait()
            sys.stdout.write((one.folder / "worker.log").read_text(encoding="utf-8"))  # shown where the test fails


@pytest.fixture
def here(kafka_broker: str, redis_server: RedisServer, topic_prefix: str) -> Iterator[Site]:
    """Two partitions on Apache Kafka, a deadline of seconds, nothing that closes by itself."""
    with site(kafka_broker, redis_server.url, topic_prefix, cooperative=True, deadline_s=8.0) as made:
        ensure_topics(made.settings.kafka, made.hooks)
        yield made


def arrivals(study: str, numbers: Sequence[int] = range(IMAGES)) -> list[StudyEvent]:
    """Images of a study, received now."""
    return [arrived(n, study=study).model_copy(update={"at": time.time()}) for n in numbers]


def scores(study: str, numbers: Sequence[int] = range(IMAGES)) -> list[StudyEvent]:
    """Their scores: the third and fourth are loud, so there is one finding."""
    return [scored(n, LOUD if n in {2, 3} else QUIET, study=study) for n in numbers]


def all_flagged(here: Site) -> bool:
    """Whether every study is flagged with all images settled."""
    items = [here.item(study) for study in STUDIES]
    return all(item and item.state == "flagged" and item.images_settled == IMAGES for item in items)


def check_told_once(here: Site) -> None:
    """One flag a study in history, live changes and (by its key) audit; none lowered; each image settled once."""
    for study in STUDIES:
        changes = [entry.change for entry in here.history(study)]
        assert changes.count(Change.FLAGGED) == 1, changes
        assert Change.WITHDRAWN not in changes
        assert [image.item.settlements for image in here.images(study)] == [1] * IMAGES
    told = Counter(
        (fields[b"uid"], fields[b"event"], fields[b"offset"]) for _, fields in here.client.xrange(here.keys.changes)
    )
    assert set(told.values()) == {1}, "no live change is told twice"
    audit = {(one["key"], one["offset"], one["change"]) for one in here.audit()}
    flagged = Counter(study for study, _, change in audit if change == "flagged")
    assert flagged == dict.fromkeys(STUDIES, 1), "audit records of one change have one key"


def nap(here: Site, both: Sequence[Worker], sleeper: Worker) -> None:
    """Once it is stopped: the other takes over all, it wakes, and they share again."""
    other = next(one for one in both if one is not sleeper)
    wait_until(lambda: other.holds() == 2, "the other has both", PATIENCE_S)
    wait_until(here.ready, "taken over", PATIENCE_S)
    sleeper.send(signal.SIGCONT)
    wait_until(lambda: [one.holds() for one in both] == [1, 1], "shared again", PATIENCE_S)
    wait_until(here.ready, "ready again", PATIENCE_S)


def test_a_zombie_that_wakes_up_doubles_nothing_and_lowers_nothing(here: Site, tmp_path: Path) -> None:
    """SIGSTOP beyond the session in mid-study, each worker once; what the sleeper then tries is refused.

    A sleeper that hears first that it left the group tries nothing: they go on sleeping in turn, while a scanner sends
    its images again, until one tried.
    """
    pace = random.Random(3)
    events = [one for study in STUDIES for one in arrivals(study)]
    with workers(here, tmp_path) as both:
        for event in events:
            here.append(event)
        rest = list(itertools.chain.from_iterable(zip(*(scores(study) for study in STUDIES), strict=True)))
        for sleeper, part in zip(both, (rest[: len(rest) // 2], rest[len(rest) // 2 :]), strict=True):
            for place, event in enumerate(part):
                here.append(event)
                if place == len(part) // 3:
                    time.sleep(pace.random() * 0.05)
                    sleeper.send(signal.SIGSTOP)
            nap(here, both, sleeper)
        wait_until(lambda: all_flagged(here), "all flagged", PATIENCE_S)
        for sleeper in itertools.islice(itertools.cycle(both), NAPS):
            if any(one.told("stale_write") for one in both):
                break
            sleeper.send(signal.SIGSTOP)
            here.append(*events)
            nap(here, both, sleeper)
        assert any(one.told("stale_write") for one in both), "a sleeper tried, and was refused"
    check_told_once(here)


def test_studies_are_told_as_delayed_while_nobody_scores_and_workers_come_and_go(here: Site, tmp_path: Path) -> None:
    """Every scorer dead, one flagging worker killed, one stopped for good, a third started late: each study says
    *not analysed (delayed)* once, and is revised when scores come.
    """
    with workers(here, tmp_path) as both:
        here.append(*(one for study in STUDIES for one in arrivals(study)))
        both[0].process.kill()
        wait_until(lambda: all(here.item(study) for study in STUDIES), "all are listed", PATIENCE_S)
        both[1].send(signal.SIGSTOP)
        home = tmp_path / "third"
        home.mkdir()
        third = Worker(here.process(home), home)
        try:
            wait_until(
                lambda: all((one := here.item(study)) and one.reason is Reason.DELAYED for study in STUDIES),
                "all are told as delayed",
                PATIENCE_S,
            )
            both[1].send(signal.SIGCONT)
            here.append(*(one for study in STUDIES for one in scores(study)))
            wait_until(lambda: all_flagged(here), "all flagged", PATIENCE_S)
        finally:
            third.process.kill()
            third.process.wait()
    for study in STUDIES:
        delayed = [entry for entry in here.history(study) if entry.reason is Reason.DELAYED]
        assert len(delayed) == 1
    check_told_once(here)
