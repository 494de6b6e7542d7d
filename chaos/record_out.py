"""What was run and what came of it: one JSON line a run, kept outside the clone, so that the matrix grows in pieces."""

import json
import os
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.figure import this_machine
from chaos.scenario import Outcome, totals

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results"
TRIED = ("contracts", "producer", "worker", "worklist", "launch", "chaos", "requirements")  # what a run's outcome is of
GIT_S = 10  # a question about the clone


@dataclass(frozen=True, slots=True)
class Kept:
    """One line of the file: an outcome, when it ended, of which version it is, how busy the machine was."""

    outcome: Outcome
    at: str
    version: str
    load: float = 0.0  # average of the machine's last minute: a recovery on a crowded machine says less

    @property
    def cell(self) -> tuple[str, int]:
        """Fault and seed: run again, one of the runs counts (``counted``)."""
        return self.outcome.fault, self.outcome.seed


def default_file() -> Path:
    """Beside the other caches of the project."""
    caches = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "lesion-triage" / "chaos" / "runs.jsonl"


def version() -> str:
    """The last commit that touched what is tried, ``+`` if it has been changed since; ``unknown`` outside a clone."""
    commit = _git("log", "-1", "--format=%h", "--", *TRIED)
    return (commit or "unknown") + ("+" if _git("status", "--porcelain", "-uno", "--", *TRIED) else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def keep(file: Path, outcome: Outcome, version: str) -> None:
    """Appends one line; a run that is interrupted leaves none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    at, load = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", round(os.getloadavg()[0], 1)
    line = json.dumps(outcome.told() | {"at": at, "version": version, "load": load})
    with file.open("a", encoding="utf-8") as sink:
        sink.write(line + "\n")


def kept(file: Path) -> list[Kept]:
    """Every line, in order; nothing where there is no file."""
    if not file.exists():
        return []
    return [_decoded(json.loads(line)) for line in file.read_text("utf-8").splitlines() if line]


def _decoded(told: Mapping[str, Any]) -> Kept:
    known = {field.name: told[field.name] for field in fields(Outcome) if field.name in told}
    known["violations"] = tuple(known["violations"])
    return Kept(Outcome(**known), told["at"], told["version"], told.get("load", 0.0))


def counted(runs: Iterable[Kept]) -> list[Kept]:
    """Of each fault and seed one run: of the version that was run last the worst, of equal ones the last.

    A later version takes the place of an earlier one. A second run of the same version proves nothing against the
    first: what it was seen to do once, it does.
    """
    cells: dict[tuple[str, int], list[Kept]] = {}
    for run in runs:
        cells.setdefault(run.cell, []).append(run)
    return [_worst([run for run in tried if run.version == tried[-1].version]) for tried in cells.values()]


def _worst(tried: Sequence[Kept]) -> Kept:
    return max(reversed(tried), key=_badness)


def _badness(run: Kept) -> tuple[int, int]:
    told = run.outcome
    return len(told.violations), told.lost + told.doubled + told.silent_normals + told.actions_lost


def summary(runs: Sequence[Kept], command: str) -> dict[str, Any]:
    """What the file comes to: each fault and seed counted once, by the run that ``counted`` chooses."""
    cells = counted(runs)
    names = sorted({run.outcome.fault for run in cells})
    versions = sorted({run.version for run in cells})
    return {
        "command": command,
        "machine": this_machine().told(),
        "versions": {v: sum(run.version == v for run in cells) for v in versions},
        "first": min((run.at for run in cells), default=""),
        "last": max((run.at for run in cells), default=""),
        "highest_load": max((run.load for run in cells), default=0.0),
        "totals": totals([run.outcome for run in cells]),
        "faults": {name: totals([run.outcome for run in cells if run.outcome.fault == name]) for name in names},
        "violations": [_violated(run) for run in cells if run.outcome.violations],
        # Runs in whose place another counts, mostly of a later version: what was found on the way.
        "replaced": [_violated(run) for run in runs if run not in cells and run.outcome.violations],
    }


def _violated(run: Kept) -> dict[str, Any]:
    told = run.outcome
    return {
        "fault": told.fault,
        "seed": told.seed,
        "version": run.version,
        "struck": told.struck,
        "violations": list(told.violations),
    }


def write_summary(runs: Sequence[Kept], command: str, folder: Path = RESULTS) -> Path:
    """``DATE-chaos.json``; the file's path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{datetime.now(UTC):%Y-%m-%d}-chaos.json"
    file.write_text(json.dumps(summary(runs, command), indent=1) + "\n", "utf-8")
    return file
