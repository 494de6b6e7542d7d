"""One pure target in a process of its own, as its service runs it: ``python -m chaos.fuzz.child_call``.

Inputs are made one after the other from a seed (or, with ``--coverage``, by atheris from what they reach) and given to
the target. Prints one JSON object at the end; what cannot be told then stands in the slot.
"""

import argparse
import gc
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from chaos.fuzz.dice import Seeded, Tape
from chaos.fuzz.found_out import Found
from chaos.fuzz.slot_call import Slot

HANG_S = 5.0  # one input may take that long
WARM_SHARE = 0.2  # of the inputs: what is loaded, cached and pooled by then is no growth
# Modules whose branches steer atheris: ours, and what walks hostile bytes for us; tables of names steer nothing.
STEERED_BY = (
    *("contracts", "producer", "worker", "worklist", "python_multipart"),
    *("pydicom.charset", "pydicom.encaps", "pydicom.filereader", "pydicom.pixels", "pydicom.sequence"),
)
TAPE_BYTES = 4096  # of choices: more than any grammar asks for


class Hung(BaseException):
    """Not an Exception: no guard of ours may swallow it."""


def rss_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Run:
    """One target's run: counts, the memory when warm, what was found."""

    name: str
    call: Callable[[bytes], None]
    slot: Slot
    found: Found
    done: int = 0
    warm_bytes: int = 0
    slowest_s: float = 0.0

    def one(self, number: int, data: bytes) -> None:
        """Gives one input to the target."""
        self.slot.begin(self.done, number, data)
        began_s = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            self.call(data)
        except Hung as hung:
            self._again(data, hung)
        except Exception as problem:  # noqa: BLE001 - that is what is looked for
            self.found.crash(self.name, data, problem)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self.done += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
        self.slot.end(self.done, number)

    def _again(self, data: bytes, hung: Hung) -> None:
        """A machine that others keep busy may stall once: only an input that takes so long twice hangs."""
        signal.setitimer(signal.ITIMER_REAL, HANG_S)
        try:
            self.call(data)
        except Hung:
            self.found.hang(self.name, data, str(hung))
        except Exception as problem:  # noqa: BLE001 - as in ``one``
            self.found.crash(self.name, data, problem)

    def warm(self) -> None:
        """From here on memory counts."""
        gc.collect()
        self.warm_bytes = rss_bytes()

    def told(self, seconds: float) -> dict[str, Any]:
        """As JSON."""
        gc.collect()
        growth = max(0, rss_bytes() - self.warm_bytes) if self.warm_bytes else 0
        return {
            "name": self.name,
            "inputs": self.done,
            "crashes": self.found.crashes,
            "hangs": self.found.hangs,
            "growth_mib": round(growth / 2**20, 1),
            "seconds": round(seconds, 1),
            "slowest_s": round(self.slowest_s, 2),
            "files": self.found.files,
        }


def target_named(name: str) -> Any:
    """A target of ours by name, or ``module:attribute``."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    from chaos.fuzz.pure import TARGETS  # noqa: PLC0415 - atheris instruments what is imported after it

    return TARGETS[name]


def seeded(run: Run, grammar: Callable[[Any], bytes], seed: int, first: int, inputs: int) -> None:
    """So many inputs by the seed, from number ``first`` on."""
    warm_at = first + int(inputs * WARM_SHARE)
    for number in range(first, first + inputs):
        if number == warm_at:
            run.warm()
        run.one(number, grammar(Seeded(seed, number)))


def covered(name: str, open_run: Callable[[Any], Run], args: argparse.Namespace) -> None:
    """Inputs that atheris steers by what they reach, until so many were tried or the time is up. Does not return."""
    import atheris  # type: ignore[import-untyped]  # noqa: PLC0415 - only where it is asked for

    with atheris.instrument_imports(include=list(STEERED_BY)):
        target = target_named(name)
        grammar = target.grammar
        run = open_run(target)
    began_s = time.monotonic()

    def one(tape: bytes) -> None:
        if run.done == int(args.inputs * WARM_SHARE):
            run.warm()
        run.one(run.done, grammar(Tape(tape)))
        if run.done >= args.inputs or time.monotonic() - began_s > args.box_s:
            finish(run, began_s, args.out)

    flags = [
        f"-seed={args.seed % 2**31 + 1}",
        f"-max_len={TAPE_BYTES}",
        "-len_control=0",
        "-timeout=60",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([sys.argv[0], *flags, "-verbosity=0", "-print_final_stats=0", str(_corpus(args))], one)
    atheris.Fuzz()


def _corpus(args: argparse.Namespace) -> Path:
    """Seeded choices to begin with: an empty corpus begins with the plain input alone."""
    folder = Path(args.corpus)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(64):
        (folder / f"seed-{number}").write_bytes(Seeded(args.seed, number).octets(TAPE_BYTES))
    return folder


def finish(run: Run, began_s: float, out: str) -> None:
    """Writes what came of it and ends the process at once: atheris would take the exit for a crash."""
    Path(out).write_text(json.dumps(run.told(time.monotonic() - began_s)))
    os._exit(0)


def as_a_service() -> None:
    """Logs and warnings go where a service puts them (launch/log_out.py), so their cost in memory is a service's."""
    from launch.log_out import Bridge, JsonLog  # noqa: PLC0415 - as above

    nowhere = Path(os.devnull).open("w")  # noqa: SIM115 - open for the process's life
    Bridge(JsonLog("fuzz", "INFO", stream=nowhere)).install()


def _alarm(_: int, frame: FrameType | None) -> None:
    raise Hung(f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "nowhere")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser()
    for name, kind in (("target", str), ("slot", str), ("found", str), ("out", str), ("corpus", str)):
        parser.add_argument(f"--{name}", type=kind, default="")
    for name in ("seed", "first", "inputs"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--box-s", type=float, default=1e9)
    parser.add_argument("--coverage", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, _alarm)

    def open_run(target: Any) -> Run:
        as_a_service()
        return Run(target.name, target.make(), Slot(Path(args.slot)), Found(Path(args.found)))

    if args.coverage:
        covered(args.target, open_run, args)
    target = target_named(args.target)
    run, began_s = open_run(target), time.monotonic()
    seeded(run, target.grammar, args.seed, args.first, args.inputs)
    finish(run, began_s, args.out)


if __name__ == "__main__":
    main()
