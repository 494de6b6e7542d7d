"""The ledger catches each bug that is planted on purpose, and finds nothing where there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.planted import BUGS, SEED, Bug, NotPlanted
from chaos.planted_call import PACKAGES, copied, spoilt
from chaos.rig_call import RunningRig
from chaos.run_call import Pace, one_run
from chaos.scenario import Fault
from launch.stack.service import PACKAGE_ROOT

AT_ONCE = (0.05, 0.1)  # the acts pause for themselves
PATIENT = Pace(AT_ONCE)
# What is not settled by then is lost to a bug: nobody waits for the deadlines that would tell the reader.
IMPATIENT = Pace(AT_ONCE, recovery_s=12.0, ended_s=12.0)
FAULTS = {bug.fault.name: bug.fault for bug in BUGS}


@pytest.fixture(scope="module")
def sound_rig(rig: RunningRig) -> RunningRig:
    """The services as they are, on empty topics."""
    rig.heal()
    rig.renew()
    return rig


@pytest.fixture(scope="module")
def spoilt_rig(rig: RunningRig) -> Iterator[RunningRig]:
    """The ground for services with bugs; the sound ones are back afterwards."""
    yield rig
    rig.heal()
    rig.renew()


@pytest.mark.stack
@pytest.mark.kafka
@pytest.mark.parametrize("fault", FAULTS.values(), ids=list(FAULTS))
def test_without_a_bug_the_same_runs_show_nothing(sound_rig: RunningRig, fault: Fault) -> None:
    """Same load, same fault, same seed: everything acknowledged is settled once, and no invariant is broken."""
    outcome = one_run(sound_rig, fault, SEED, PATIENT)
    sound_rig.heal()
    assert outcome.violations == ()
    assert outcome.settled == outcome.acknowledged > 30


@pytest.mark.stack
@pytest.mark.kafka
@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_caught(spoilt_rig: RunningRig, bug: Bug, tmp_path: Path) -> None:
    """The services run from a tree with the bug in it: an invariant that it breaks speaks."""
    spoilt_rig.heal()
    spoilt_rig.renew(spoilt(tmp_path, bug))
    outcome = one_run(spoilt_rig, bug.fault, SEED, IMPATIENT)
    told = "\n".join(outcome.violations[:5]) or "nothing"
    assert bug.seen_in(outcome.violations), f"the ledger says: {told}"


def test_a_bug_is_seen_by_its_own_check_alone() -> None:
    """Where it says which: another sentence of the same invariant is no proof that the right check works."""
    bug = next(bug for bug in BUGS if bug.says)
    assert bug.seen_in([f"I1 settled once: study 1 image 2 {bug.says}"])
    assert not bug.seen_in(["I1 settled once: study 1 image 2 is not there", f"I2 ends: study 1 {bug.says}"])


def test_there_are_ten_bugs_or_more_in_different_places() -> None:
    """No two are the same, and each breaks an invariant that has a check."""
    assert len({bug.name for bug in BUGS}) == len({(bug.file, bug.old) for bug in BUGS}) == len(BUGS) >= 10
    assert frozenset.union(*(bug.breaks for bug in BUGS)) == {"I1", "I2", "I3", "I4", "I7"}


@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_bug_can_be_planted_in_the_code_as_it_is(bug: Bug) -> None:
    """Its old text is there exactly once, and what comes of it can be compiled."""
    spoilt_text = bug.planted((PACKAGE_ROOT / bug.file).read_text(encoding="utf-8"))
    if bug.file.endswith(".py"):
        compile(spoilt_text, bug.file, "exec")


def test_a_bug_whose_place_has_changed_is_not_planted() -> None:
    """Code that moved on makes the test fail, not pass without a bug."""
    (bug, *_) = BUGS
    for source in ("", bug.old * 2):
        with pytest.raises(NotPlanted, match=f"holds its old text {source.count(bug.old)} times"):
            bug.planted(source)


def test_a_spoilt_tree_differs_in_the_bug_alone(tmp_path: Path) -> None:
    """All packages are there, one file is another."""
    bug = BUGS[0]
    sound, bad = copied(tmp_path / "sound"), spoilt(tmp_path / "bad", bug)
    files = sorted(path.relative_to(sound) for path in sound.rglob("*") if path.is_file())
    assert sorted(path.relative_to(bad) for path in bad.rglob("*") if path.is_file()) == files
    assert [str(f) for f in files if (sound / f).read_bytes() != (bad / f).read_bytes()] == [bug.file]
    assert {path.parts[0] for path in files} == set(PACKAGES)
