"""Runs pure targets, each in a child of its own, and stands watch: a child that dies or hangs tells by its slot."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.fuzz.found_out import Found
from chaos.fuzz.result import Tried, tried_of
from chaos.fuzz.slot_call import Slot, State

STUCK_S = 30.0  # one input, after the child's own alarm should have ended it: native code that does not return
LOOK_S = 0.2
DEATHS = 20  # of one target: then it is given up
COVERAGE_SPARE_S = 240.0  # instrumenting takes long on a busy machine: a steered child may be that late


@dataclass(frozen=True, slots=True)
class Order:
    """What a child is to do. ``coverage_s``: so long steered by coverage first, then by seed."""

    target: str
    inputs: int
    seed: int
    first: int = 0
    coverage_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Ending:
    stuck: bool
    status: int | None
    seconds: float
    tail: str  # of what it printed


@dataclass(slots=True)
class Campaign:
    """``folder`` keeps the inputs that broke something."""

    folder: Path
    tell: bool = True
    _said_s: float = field(default=0.0)
    _said: str = field(default="")

    def run(self, order: Order) -> Tried:
        """All inputs of an order."""
        tried = Tried(order.target)
        with TemporaryDirectory(prefix="triage-fuzz-") as place:
            if order.coverage_s:
                tried += self._child(order, order.inputs // 2, Path(place), coverage=True)
            for _ in range(DEATHS):
                if tried.inputs >= order.inputs:
                    break
                tried += self._child(order, order.inputs - tried.inputs, Path(place), first=order.first + tried.inputs)
        return tried

    def _child(self, order: Order, inputs: int, place: Path, *, first: int = 0, coverage: bool = False) -> Tried:
        """One child, to its end or to the input that broke it."""
        out = place / "out.json"
        out.unlink(missing_ok=True)
        found = Found(self.folder)
        command = [sys.executable, "-m", "chaos.fuzz.child_call", "--target", order.target, "--out", str(out)]
        command += ["--slot", str(place / "slot"), "--found", str(self.folder), "--corpus", str(place / "corpus")]
        command += ["--seed", str(order.seed), "--first", str(first), "--inputs", str(inputs)]
        command += ["--coverage", "--box-s", str(order.coverage_s)] if coverage else []
        began_s = time.monotonic()
        with _slot(place / "slot") as slot, (place / "log").open("ab") as log:
            slot.end(0, first)
            child = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
            stuck = self._watched(
                child, slot, order, began_s + (order.coverage_s + COVERAGE_SPARE_S if coverage else 1e9)
            )
            state = slot.read()
        if out.exists():
            return tried_of(json.loads(out.read_text()))
        if coverage and not state.begun_s:  # it was too slow to begin or to end: the rest is done by the seed
            return Tried(order.target, state.done, notes=("steering was given up",))
        ending = _Ending(stuck, child.returncode, time.monotonic() - began_s, (place / "log").read_text()[-2000:])
        return _broken(order.target, state, found, ending)

    def _watched(self, child: "subprocess.Popen[bytes]", slot: Slot, order: Order, until_s: float) -> bool:
        """Waits for its end; kills it, and says so, where one input takes for ever."""
        while child.poll() is None:
            state, now_s = slot.read(), time.monotonic()
            self._say(order, state, now_s)
            if (state.begun_s and now_s - state.begun_s > STUCK_S) or now_s > until_s:
                child.kill()
                child.wait()
                return True
            time.sleep(LOOK_S)
        return False

    def _say(self, order: Order, state: State, now_s: float) -> None:
        line = f"{order.target}: {state.done} of {order.inputs}"
        if self.tell and line != self._said and now_s - self._said_s > 2.0:  # noqa: PLR2004 - seconds between two lines
            self._said_s, self._said = now_s, line
            print(line, file=sys.stderr, flush=True)


def _broken(target: str, state: State, found: Found, ending: "_Ending") -> Tried:
    """A child that ended without a word: its slot says at which input."""
    if not state.begun_s:
        raise RuntimeError(f"{target}: the child could not begin, or not end (status {ending.status}):\n{ending.tail}")
    if ending.stuck:
        found.hang(target, state.data, "it does not return")
    else:
        found.died(target, state.data, f"ended with status {ending.status}")
    inputs = state.done + 1
    return Tried(target, inputs, found.crashes, found.hangs, 0.0, round(ending.seconds, 1), 0.0, tuple(found.files))


@contextmanager
def _slot(path: Path) -> Iterator[Slot]:
    slot = Slot(path)
    try:
        yield slot
    finally:
        slot.close()
