"""Supervision: what ends is started again, later each time; a vital part's end is reported. Real processes."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.stack.part import Part
from launch.supervision import FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S, Watched, delay_s, look_at_all
from tests.servers.processes import becomes_true


class Sleeper(Part):
    """A process that answers as long as it lives, or as a test says."""

    name = "sleeper"
    start_limit_s = 5.0
    says_ready = True
    program: Sequence[str] = ("sleep", "600")

    def command(self) -> Sequence[str]:
        """A real program."""
        return self.program

    def answers(self) -> bool:
        """What the test wants."""
        return self.says_ready and self.alive()


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Sleeper]:
    """A started one."""
    part = Sleeper(tmp_path)
    part.start()
    yield part
    part.close()


def die(part: Part) -> None:
    """Kill -9, and wait until it is noticed."""
    os.kill(part.pid, signal.SIGKILL)
    assert becomes_true(lambda: not part.alive())


def test_a_dead_part_is_started_again_after_its_delay_and_said(sleeper: Sleeper) -> None:
    """One sentence at its end with signal and delay, nothing before the delay is over, one when it answers again."""
    said: list[str] = []
    watched = Watched(sleeper, since=0.0)
    die(sleeper)
    watched.look(1.0, said.append)
    assert said == ["sleeper ended (killed by SIGKILL); it is started again in 0.5 s."]
    watched.look(1.0 + FIRST_DELAY_S / 2, said.append)
    assert not sleeper.alive()
    watched.look(1.0 + FIRST_DELAY_S, said.append)
    assert sleeper.alive()
    watched.look(1.6, said.append)
    assert said[1:] == [f"sleeper answers again (process {sleeper.pid})."]


def test_a_part_that_keeps_ending_is_started_later_each_time(sleeper: Sleeper) -> None:
    """The delay doubles with every end in a row, and starts afresh after a steady run."""
    said: list[str] = []
    watched = Watched(sleeper, since=0.0)
    now = 0.0
    for _ in range(3):
        die(sleeper)
        watched.look(now, said.append)
        assert watched.due is not None
        now = watched.due
        watched.look(now, said.append)
    assert [line.rpartition(" in ")[2] for line in said] == ["0.5 s.", "1 s.", "2 s."]
    die(sleeper)
    watched.look(now + STEADY_S + 1, said.append)
    assert said[-1].endswith("in 0.5 s.")


def test_a_part_that_does_not_answer_after_its_start_is_killed_and_tried_again(sleeper: Sleeper) -> None:
    """A restarted server that hangs is not waited for longer than its start limit."""
    said: list[str] = []
    watched = Watched(sleeper, since=0.0)
    die(sleeper)
    sleeper.says_ready = False
    watched.look(1.0, said.append)
    watched.look(2.0, said.append)
    assert sleeper.alive()
    watched.look(3.0, said.append)
    assert sleeper.alive()
    watched.look(2.0 + sleeper.start_limit_s + 1, said.append)
    assert not sleeper.alive()
    assert said[-1] == "sleeper did not answer within 5 s; it is killed."
    watched.look(9.0, said.append)
    assert watched.due == 9.0 + delay_s(2)


def test_a_start_that_fails_is_said_and_tried_again(sleeper: Sleeper) -> None:
    """A folder that cannot be made is told; the supervisor goes on."""
    said: list[str] = []
    watched = Watched(sleeper, since=0.0)
    die(sleeper)
    sleeper.cwd = sleeper.folder / "gone"
    watched.look(1.0, said.append)
    watched.look(2.0, said.append)
    assert "sleeper could not be started" in said[1]
    assert watched.due == 2.0 + delay_s(2)


def test_the_end_of_a_vital_part_is_reported_and_nothing_is_started(sleeper: Sleeper, tmp_path: Path) -> None:
    """A memory-only broker is not brought back empty: whoever watches is told."""
    other = Sleeper(tmp_path / "other")
    other.start()
    said: list[str] = []
    try:
        both = [Watched(sleeper, vital=True), Watched(other)]
        assert look_at_all(both, 0.0, said.append) is None
        die(sleeper)
        die(other)
        lost = look_at_all(both, 1.0, said.append)
        assert lost is both[0]
        assert said == []
    finally:
        other.close()


@given(st.integers(min_value=1, max_value=1000))
def test_delays_grow_and_stay_bounded(failures: int) -> None:
    """No delay is shorter than the one before, none is longer than the bound."""
    assert FIRST_DELAY_S <= delay_s(failures) <= delay_s(failures + 1) <= LONGEST_DELAY_S
