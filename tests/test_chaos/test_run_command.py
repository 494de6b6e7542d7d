"""`python -m chaos`: what it prints, what it keeps, when it fails. The stack is not started; runs are made up."""

import json
from pathlib import Path
from typing import Any, Self

import pytest

from chaos import __main__ as command
from chaos import record_out
from chaos.matrix import FAULTS
from chaos.scenario import Fault, Outcome

KEYS = {
    *("fault", "seed", "acknowledged", "settled", "lost", "doubled", "silent_normals", "actions_lost"),
    *("recovered_s", "violations"),
}


def outcome(fault: str, seed: int, *violations: str) -> Outcome:
    """Of a run that never was."""
    return Outcome(fault, seed, 100, 100 - len(violations), len(violations), 0, 0, 0, 1.5, violations, "somebody")


class MadeUp:
    """A runner whose runs hold, but for the faults named."""

    violated: tuple[str, ...] = ()
    interrupted_after: int | None = None

    def __init__(self, say: Any, logs: Path) -> None:
        self.runs = 0
        del say, logs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, fault: Fault, seed: int) -> Outcome:
        """As told by the class."""
        if self.runs == self.interrupted_after:
            raise KeyboardInterrupt
        self.runs += 1
        return outcome(fault.name, seed, *(("I1 lost",) if fault.name in self.violated else ()))


@pytest.fixture(autouse=True)
def _no_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "Runner", MadeUp)
    monkeypatch.setattr(MadeUp, "violated", ())
    monkeypatch.setattr(MadeUp, "interrupted_after", None)


def run(file: Path, *arguments: str) -> int:
    """The command with a file of its own."""
    return command.main([*arguments, "--keep", str(file)])


def test_json_tells_every_run_and_the_totals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object on standard output with the issue's fields; progress is on standard error."""
    status = run(tmp_path / "runs", "--fault", "kill_worker", "--seed", "5", "--runs", "2", "--json")
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert status == 0
    assert [(r["fault"], r["seed"]) for r in told["runs"]] == [("kill_worker", 5), ("kill_worker", 6)]
    assert all(set(r) >= KEYS for r in told["runs"])
    assert told["totals"]["acknowledged"] == 200
    assert printed.err.count("kill_worker") == 2


def test_a_violation_is_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One violated run among others is enough, and its sentence is shown."""
    monkeypatch.setattr(MadeUp, "violated", ("kill_redis",))
    assert run(tmp_path / "runs", "--fault", "kill_worker", "kill_redis") == 1
    assert "I1 lost" in capsys.readouterr().err


def test_without_names_every_fault_runs_once_before_the_next_seed(tmp_path: Path) -> None:
    """Seed after seed: what is interrupted has tried as many faults as it could."""
    assert run(tmp_path / "runs", "--runs", "2") == 0
    cells = [kept.cell for kept in record_out.kept(tmp_path / "runs")]
    assert cells == [(name, seed) for seed in (1, 2) for name in FAULTS]


def test_an_interrupted_matrix_is_resumed_where_it_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished runs are kept at once; --resume runs the others and none twice, for the same version of the code."""
    monkeypatch.setattr(record_out, "version", lambda: "abc1234")
    monkeypatch.setattr(MadeUp, "interrupted_after", 3)
    assert run(tmp_path / "runs") == command.INTERRUPTED
    assert len(record_out.kept(tmp_path / "runs")) == 3
    monkeypatch.setattr(MadeUp, "interrupted_after", None)
    assert run(tmp_path / "runs", "--resume") == 0
    assert [kept.cell for kept in record_out.kept(tmp_path / "runs")] == [(name, 1) for name in FAULTS]
    monkeypatch.setattr(record_out, "version", lambda: "def5678")
    assert run(tmp_path / "runs", "--resume", "--fault", "kill_redis") == 0
    assert len(record_out.kept(tmp_path / "runs")) == len(FAULTS) + 1


def test_the_summary_counts_the_latest_version_of_each_fault_and_seed(tmp_path: Path) -> None:
    """A run that was repeated counts once; what its first try violated stays visible as found on the way."""
    file = tmp_path / "runs"
    record_out.keep(file, outcome("kill_redis", 1, "I1 lost"), "old")
    record_out.keep(file, outcome("kill_redis", 1), "new")
    record_out.keep(file, outcome("kill_worker", 1), "new")
    written = json.loads(record_out.write_summary(record_out.kept(file), "the command", tmp_path).read_text())
    assert written["totals"]["runs"] == 2
    assert written["totals"]["acknowledged"] == 200
    assert written["totals"]["violations"] == 0
    assert written["faults"]["kill_redis"]["runs"] == 1
    assert written["versions"] == {"new": 2}
    assert [one["violations"] for one in written["replaced"]] == [["I1 lost"]]
    assert written["machine"]["cores"] >= 1
    assert written["highest_load"] == max(kept.load for kept in record_out.kept(file))


@pytest.mark.parametrize("tries", [("I1 lost", ""), ("", "I1 lost"), ("I1 lost", "", "")], ids=len)
def test_a_rerun_of_the_same_version_wipes_out_no_violation(tmp_path: Path, tries: tuple[str, ...]) -> None:
    """Whatever was seen once counts, before or after runs of the same code that held; the worst run does."""
    file = tmp_path / "runs"
    record_out.keep(file, outcome("kill_redis", 1, "I1 lost", "I2 ends", "I7 silent"), "old")
    for told in tries:
        record_out.keep(file, outcome("kill_redis", 1, *filter(None, [told])), "new")
    written = record_out.summary(record_out.kept(file), "the command")
    assert written["totals"]["runs"] == written["totals"]["violations"] == written["totals"]["lost"] == 1
    assert [(one["version"], one["violations"]) for one in written["violations"]] == [("new", ["I1 lost"])]
    assert [one["version"] for one in written["replaced"]] == ["old"]


def test_only_another_version_takes_the_place_of_a_violation(tmp_path: Path) -> None:
    """A later one that holds: what was found before is told as found on the way. The same one again does not."""
    file = tmp_path / "runs"
    for version, violations in (("a", ["I1 lost"]), ("b", []), ("b", ["I2 ends"]), ("c", [])):
        record_out.keep(file, outcome("kill_redis", 1, *violations), version)
    written = record_out.summary(record_out.kept(file), "the command")
    assert (written["totals"]["violations"], written["versions"]) == (0, {"c": 1})
    assert [one["violations"] for one in written["replaced"]] == [["I1 lost"], ["I2 ends"]]
    record_out.keep(file, outcome("kill_redis", 1), "a")
    assert record_out.summary(record_out.kept(file), "again")["totals"]["violations"] == 1


def test_a_misspelt_fault_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error names what was asked for."""
    with pytest.raises(SystemExit):
        run(tmp_path / "runs", "--fault", "kill_evrything")
    assert "kill_evrything" in capsys.readouterr().err


def test_the_list_names_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With what each tries; nothing is run."""
    assert run(tmp_path / "runs", "--list") == 0
    printed = capsys.readouterr().out
    assert all(f"{fault.name} " in printed and fault.why in printed for fault in FAULTS.values())
    assert not (tmp_path / "runs").exists()
