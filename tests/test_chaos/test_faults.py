"""The matrix: whole, repeatable, and every act heals what it did, also when it is interrupted."""

# ruff: noqa: ARG002, ARG005, D102  (the recorder has the rig's methods, which scenario.Rig describes)

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import redis

from chaos.faults import redis_call, signals_call
from chaos.faults.trouble import Shown
from chaos.matrix import FAULTS, matrix, table
from chaos.poison import Poison
from chaos.scenario import Disk, Fault, Mood
from launch.stack.redis_server import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "chaos.md"
BEGIN, END = "<!-- faults -->", "<!-- end of faults -->"

# The list, in its order, by our names.
PROMISED = (
    "kill_producer kill_worker kill_worklist kill_triton kill_redis kill_broker kill_leader brokers_down insync_lost "
    "zombie_worker redis_emptied redis_truncated triton_hangs triton_nan triton_wrong_shape triton_unknown_model "
    "disk_full sync_fails link_reset link_slow link_one_way clock_ahead clock_behind membership_churn "
    "rolling_restart_workers poison_study five_times out_of_order same_uid_other_bytes overload"
).split()


def test_every_promised_fault_is_in_the_matrix() -> None:
    """Nothing of the issue's list is missing, and there are at least thirty."""
    assert set(PROMISED) <= set(FAULTS)
    assert len(FAULTS) >= 30


def test_the_page_shows_the_matrix_as_it_is() -> None:
    """docs/chaos.md holds the table that FAULTS makes. ``UPDATE_DOCS=1`` writes it again."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page = f"{before}{BEGIN}\n{table()}\n{END}{after}"
    if os.environ.get("UPDATE_DOCS"):
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "UPDATE_DOCS=1 make test-fast writes it again"


class Interrupted(Exception):
    """What Ctrl-C does to a run."""


class Part:
    """A part that writes down what is done to it."""

    start_limit_s = stop_limit_s = 1.0
    pid = 0  # signals reach nobody
    ending = "status 0"

    def __init__(self, name: str, told: list[str]) -> None:
        self.folder = Path(name)
        self.told = told
        self.up = True
        self.stopped = False

    def alive(self) -> bool:
        return self.up

    @property
    def status(self) -> int | None:
        return None if self.up else 0

    def strike(self) -> None:
        self.told.append(f"strike {self.folder.name}")

    def kill(self) -> None:
        self.told.append(f"kill {self.folder.name}")
        self.up = False

    def launch(self) -> None:
        self.told.append(f"launch {self.folder.name}")
        self.up = True

    def wait_until_answering(self, limit_s: float) -> None:
        assert self.up

    def start(self) -> None:
        self.launch()

    def ask_to_stop(self) -> None:
        self.told.append(f"stop {self.folder.name}")
        self.up = False

    def wait_until_stopped(self, limit_s: float) -> None:
        self.up = False

    def close(self) -> None:
        self.up = False


class Store(Part):
    """A Redis that nobody asks."""


class Link:
    """Writes down whether it is sound."""

    def __init__(self) -> None:
        self.sound = True

    def reset_after(self, size_bytes: int) -> None:
        self.sound = False

    def delay(self, seconds: float) -> None:
        self.sound = False

    def one_way(self) -> None:
        self.sound = False

    def cut(self) -> None:
        self.sound = False

    def heal(self) -> None:
        self.sound = True


class Recorder:
    """A rig that is nothing but its record: so that every act can be interrupted at every pause."""

    partitions = 6

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.told: list[str] = []
        self.brokers = [Part(f"broker-{n}", self.told) for n in (1, 2, 3)]
        self.redis, self.triton = Store("redis", self.told), Part("triton", self.told)
        self.producers = [Part(f"producer-{n}", self.told) for n in (1, 2)]
        self.workers = [Part(f"worker-{n}", self.told) for n in (1, 2)]
        self.worklist = Part("worklist", self.told)
        self.links: Mapping[str, Link] = {name: Link() for name in ("dicom-0", "dicom-1", "redis", "triton")}
        self.mood, self.store, self.served = Mood.SOUND, Disk.SOUND, True
        self.clocks: dict[str, float] = {}
        self.extra: list[Part] = []
        self._pauses_left = interrupt_at
        self.says = "degraded"

    def parts(self) -> list[Part]:
        return [*self.brokers, self.redis, self.triton, *self.producers, *self.workers, self.worklist]

    def leader(self) -> Part:
        return self.brokers[1]

    def model(self, mood: Mood) -> None:
        self.told.append(f"mood {mood}")
        self.mood = mood

    def disk(self, trouble: Disk) -> None:
        self.told.append(f"disk {trouble}")
        self.store = trouble

    def clock(self, part: Part, ahead_s: float) -> None:
        self.told.append(f"clock {part.folder.name} {ahead_s}")
        self.clocks[part.folder.name] = ahead_s

    def serve(self, *, model: bool) -> None:
        self.served = model

    def tell(self, records: Sequence[Poison]) -> None:
        self.told += [f"append {one.partition} {one.key!r} {one.value[:99]!r}" for one in records]

    def extra_worker(self) -> Part:
        self.extra.append(Part("worker-3", self.told))
        return self.extra[-1]

    def status(self) -> str:
        self.told.append("read")
        return self.says

    def pause(self, seconds: float) -> None:
        assert seconds >= 0
        self.told.append(f"pause {seconds:.6f}")
        if self._pauses_left is not None:
            self._pauses_left -= 1
            if self._pauses_left < 0:
                raise Interrupted

    def revive(self, part: Part) -> None:
        part.up = True

    def healed(self) -> bool:
        everybody = all(part.up for part in self.parts()) and not any(part.up for part in self.extra)
        return (
            everybody
            and all(link.sound for link in self.links.values())
            and (self.mood, self.store, self.served) == (Mood.SOUND, Disk.SOUND, True)
            and not any(self.clocks.values())
        )


@pytest.fixture(autouse=True)
def _nobody_to_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorder has no Redis; the real one is struck below."""
    monkeypatch.setattr(redis_call, "emptied", lambda server: server.told.append("flushall"))
    monkeypatch.setattr(redis_call, "cut_short", lambda server, dice: f"cut at {dice.random():.6f}")
    monkeypatch.setattr(redis_call, "removed", lambda server: server.told.append("removed"))
    monkeypatch.setattr(signals_call, "_signal", lambda parts, number: None)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_a_fault_leaves_nothing_broken_behind(fault: Fault) -> None:
    """After the act every part runs, every link flows, model, disk and clocks are as they were; it says what it did."""
    rig: Any = Recorder()
    assert fault.act(rig, Random(1))
    assert rig.healed()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_an_interrupted_fault_heals_too(fault: Fault) -> None:
    """Whichever pause is interrupted: what was struck is healed before the interrupt goes on."""
    for pause in range(3):
        rig: Any = Recorder(interrupt_at=pause)
        with suppress(Interrupted):
            fault.act(rig, Random(1))
        assert rig.healed(), f"interrupted in pause {pause}"


@pytest.mark.parametrize("name", FAULTS)
def test_the_same_seed_does_the_same(name: str) -> None:
    """Victim, moment and length are the dice's alone."""
    records = []
    for _ in range(2):
        rig: Any = Recorder()
        matrix()[name].act(rig, Random(7))
        records.append(rig.told)
    assert records[0] == records[1]


def test_a_read_that_says_ok_while_the_store_hangs_is_shown() -> None:
    """At the beginning as at the end; the store is thawed all the same. Marked answers, or none, show nothing."""
    rig: Any = Recorder()
    for rig.says in ("degraded", "rebuilding", "away"):
        assert FAULTS["redis_frozen"].act(rig, Random(1))
    assert rig.told.count("read") == 6
    rig.says = "ok"
    with pytest.raises(Shown, match="says ok while the store hangs") as shown:
        FAULTS["redis_frozen"].act(rig, Random(1))
    assert shown.value.invariant == "I7 silently normal"
    assert rig.healed()


def test_hold_shortens_an_outage_and_no_timeout() -> None:
    """A tenth of the minute without brokers is six seconds; a zombie still sleeps beyond its session."""
    short = matrix(0.1)
    assert _paused(short["brokers_down"]) == pytest.approx(6.0)
    assert _paused(short["zombie_worker"]) > 6.0


def _paused(fault: Fault) -> float:
    rig: Any = Recorder()
    fault.act(rig, Random(3))
    return sum(float(line.split()[1]) for line in rig.told if line.startswith("pause"))


# The acts that reach into Redis, against a real one.


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own with a hundred keys that are on disk."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    with redis.Redis.from_url(server.url) as client:
        for number in range(100):
            client.set(f"key-{number}", number)
    try:
        yield server
    finally:
        server.close()


def _size(server: RedisServer) -> int:
    with redis.Redis.from_url(server.url) as client:
        return int(client.dbsize())


@pytest.mark.stack
def test_flushall_empties_it(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left, and it still answers."""
    monkeypatch.undo()
    redis_call.emptied(store)
    assert _size(store) == 0


@pytest.mark.stack
def test_a_cut_file_is_loaded_up_to_the_cut(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After kill -9 and the cut Redis starts by itself with the first part of its keys, for whatever byte."""
    monkeypatch.undo()
    sizes = [_size(store)]
    dice = Random(5)
    for _ in range(3):
        store.kill()
        assert "cut from" in redis_call.cut_short(store, dice)
        store.start()
        sizes.append(_size(store))
    assert sizes[0] == 100
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 100


@pytest.mark.stack
def test_a_removed_file_leaves_it_empty(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts from nothing."""
    monkeypatch.undo()
    store.kill()
    redis_call.removed(store)
    store.start()
    assert _size(store) == 0


@pytest.mark.stack
def test_a_frozen_part_answers_nobody_until_it_is_thawed(store: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP keeps its connections open and silent; SIGCONT lets it go on."""
    monkeypatch.undo()
    signals_call.freeze([store])
    with redis.Redis.from_url(store.url, socket_timeout=0.5) as client:
        with pytest.raises(redis.TimeoutError):
            client.ping()
        signals_call.thaw([store])
        assert client.ping()
