"""``python -m chaos.fuzz``: a million malformed inputs at every function and door, or so many as are asked for."""

import argparse
import json
import subprocess
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.figure import this_machine
from chaos.fuzz.child_call import HANG_S
from chaos.fuzz.doors_call import DOORS, replay_at_door
from chaos.fuzz.pure import TARGETS
from chaos.fuzz.result import Result
from chaos.fuzz.run_call import Wanted, replay, run

INPUTS = 1_000_000
COVERAGE_S = 15.0  # of each pure target in each chunk of 50,000 inputs, where atheris is installed
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Exit status: 0 where nothing was found and the scanner was served."""
    args = _arguments()
    if args.replay:
        return max(_replayed(path) for path in args.replay)
    coverage_s = args.coverage_s if find_spec("atheris") else 0.0
    wanted = Wanted(args.inputs, args.seed, args.found.resolve(), tuple(args.target), coverage_s)
    if args.fresh:
        wanted.state.unlink(missing_ok=True)
    result = run(wanted)
    print(json.dumps(result.told()) if args.json else _sentences(result))
    if args.keep:
        _keep(result)
    return 0 if result.good else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS, help="of all targets together")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same inputs")
    names = sorted((*TARGETS, *DOORS))
    parser.add_argument("--target", nargs="+", default=[], choices=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--coverage-s", type=float, default=COVERAGE_S, help="seconds of atheris a target and chunk")
    parser.add_argument("--found", type=Path, default=ROOT / "runs" / "fuzz", help="inputs that broke something, state")
    parser.add_argument("--fresh", action="store_true", help="do not take up an interrupted run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--keep", action="store_true", help="write bench/results/DATE-fuzz.json")
    parser.add_argument(
        "--replay", nargs="+", type=Path, metavar="FILE", help="give kept inputs to their targets again"
    )
    return parser.parse_args()


def _replayed(path: Path) -> int:
    told = replay(path, lambda name: TARGETS[name].make() if name in TARGETS else replay_at_door(name), HANG_S * 12)
    print(f"{path.name}: {told}")
    return int(told != "nothing wrong")


def _sentences(result: Result) -> str:
    lines = [
        f"{one.name}: {one.inputs} inputs, {one.crashes} crashes, {one.hangs} hangs, "
        f"+{one.growth_mib} MiB, slowest {one.slowest_s} s {' '.join(one.files)}".rstrip()
        for one in result.targets.values()
    ]
    scanner = result.scanner
    lines.append(f"scanner: {scanner.sent} sent, {scanner.stored} stored, {scanner.settled} settled")
    return "\n".join([*lines, f"{result.inputs} inputs: {'nothing found' if result.good else 'SOMETHING FOUND'}"])


def _keep(result: Result) -> None:
    now = datetime.now(tz=UTC)
    kept = result.told() | {
        "machine": this_machine().told(),
        "commit": _commit(),
        "at": now.isoformat(timespec="seconds"),
    }
    path = ROOT / "bench" / "results" / f"{now:%Y-%m-%d}-fuzz.json"
    path.write_text(json.dumps(_without_folders(kept), indent=2) + "\n", encoding="utf-8")
    print(f"kept in {path.relative_to(ROOT)}", file=sys.stderr)


def _without_folders(kept: dict[str, Any]) -> dict[str, Any]:
    """Names of files without where they lay: that is nobody else's."""
    targets = [one | {"files": [Path(file).name for file in one["files"]]} for one in kept["targets"]]
    return kept | {"targets": targets}


def _commit() -> str:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    return told.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
