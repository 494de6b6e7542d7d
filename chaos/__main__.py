"""Strike the real stack with seeded faults while scanners send, and count what is lost, doubled or silently normal.

Three brokers, Redis, Triton, two producers, two workers and the worklist are started on loopback and stay up between
runs. The same fault and seed strike the same victim at the same moment under the same load. Exit status 1 on any
violation. Every finished run is kept, so the matrix can be run in pieces: --resume goes on where it was left.
"""

import argparse
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from chaos import record_out
from chaos.matrix import FAULTS, by_family, matrix
from chaos.runner_call import Runner
from chaos.scenario import Fault, Outcome, totals
from contracts.errors import TriageError
from launch.local import stop_signals

INTERRUPTED = 130  # as shells tell it


def main(arguments: Sequence[str] | None = None) -> int:
    """0: no violation; 1: some, or the stack did not start; 130: interrupted."""
    options = _options(arguments)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if options.list:
        return _listed()
    if options.summary:
        return _summed_up(options, console)
    try:
        outcomes = _run_all(options, console)
    except KeyboardInterrupt:
        console.print("interrupted: everything is stopped, what was finished is kept.")
        return INTERRUPTED
    except TriageError as problem:
        console.print(escape(str(problem)))
        return 1
    _tell(outcomes, console, as_json=options.json)
    return int(any(outcome.violations for outcome in outcomes))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__, formatter_class=_AsWritten)
    add = parser.add_argument
    add("--fault", nargs="+", action="extend", metavar="NAME", choices=FAULTS, help="one fault or more (default: all)")
    add("--seed", type=int, default=1, metavar="N", help="the first seed (default: 1)")
    add("--runs", type=int, default=1, metavar="N", help="so many seeds of each fault: seed, seed+1, … (default: 1)")
    add("--hold", type=float, default=1.0, metavar="X", help="outages X times as long (default: 1; 60 s of no broker)")
    add("--json", action="store_true", help="one JSON object on standard output: runs and totals")
    add("--list", action="store_true", help="the faults and what each tries; nothing is run")
    add("--keep", type=Path, metavar="FILE", help=f"where finished runs are kept (default: {_short_default()})")
    add("--resume", action="store_true", help="skip what is kept there already for this version of the code")
    add("--summary", action="store_true", help="run nothing; write bench/results/DATE-chaos.json from what is kept")
    options = parser.parse_args(arguments)
    options.keep = options.keep or record_out.default_file()
    if options.runs < 1 or options.hold <= 0:
        parser.error("--runs and --hold must be greater than nothing")
    return options


class _AsWritten(argparse.RawDescriptionHelpFormatter):
    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        """The metavar, not all the choices: --list tells them."""
        return super()._format_args(action, default_metavar)


def _short_default() -> str:
    file, home = record_out.default_file(), Path.home()
    return f"~/{file.relative_to(home)}" if file.is_relative_to(home) else str(file)


def _listed() -> int:
    for family, rows in by_family().items():
        print(family)
        for fault in rows:
            print(f"  {fault.name:24} {fault.why}")
    return 0


def _summed_up(options: argparse.Namespace, console: Console) -> int:
    runs = record_out.kept(options.keep)
    if not runs:
        console.print(f"nothing is kept in {options.keep}")
        return 1
    file = record_out.write_summary(runs, shlex.join(["python", "-m", "chaos", *sys.argv[1:]]))
    result = totals([run.outcome for run in record_out.counted(runs)])
    console.print(f"{file}: {json.dumps(result)}")
    return int(bool(result["violations"]))


def _run_all(options: argparse.Namespace, console: Console) -> list[Outcome]:
    version = record_out.version()
    todo = list(_todo(options, version))
    outcomes: list[Outcome] = []
    logs = options.keep.parent / "logs"
    _heed_interrupts()
    with stop_signals(), Runner(lambda told: console.print(f"[dim]{escape(told)}[/dim]"), logs=logs) as runner:
        for number, (fault, seed) in enumerate(todo, start=1):
            outcomes.append(runner.run(fault, seed))
            record_out.keep(options.keep, outcomes[-1], version)
            _progress(console, f"{number}/{len(todo)}", outcomes[-1])
    return outcomes


def _heed_interrupts() -> None:
    """A shell that starts us in the background has SIGINT ignored: a matrix that runs for hours must still hear it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _todo(options: argparse.Namespace, version: str) -> Iterator[tuple[Fault, int]]:
    """All faults with one seed before the next seed: whatever was interrupted has tried most."""
    rows = matrix(options.hold)
    done = {run.cell for run in record_out.kept(options.keep) if run.version == version} if options.resume else set()
    for seed in range(options.seed, options.seed + options.runs):
        for name in options.fault or rows:
            if (name, seed) not in done:
                yield rows[name], seed


def _progress(console: Console, number: str, outcome: Outcome) -> None:
    """One line a run; the violations below it."""
    recovered = "-" if outcome.recovered_s is None else f"{outcome.recovered_s:.1f} s"
    mark = "[red]VIOLATED[/red]" if outcome.violations else "[green]holds[/green]"
    console.print(
        f"{number:>7} {outcome.fault:24} seed {outcome.seed:<4} {mark} acknowledged {outcome.acknowledged},"
        f" settled {outcome.settled}, lost {outcome.lost}, doubled {outcome.doubled}, recovered {recovered},"
        f" took {outcome.seconds:.0f} s [dim]({escape(outcome.struck)})[/dim]"
    )
    for violation in outcome.violations:
        console.print(f"        [red]{escape(violation)}[/red]")


def _tell(outcomes: Sequence[Outcome], console: Console, *, as_json: bool) -> None:
    result = totals(outcomes)
    if as_json:
        print(json.dumps({"runs": [outcome.told() for outcome in outcomes], "totals": result}))
    else:
        console.print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
