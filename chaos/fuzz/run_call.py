"""A whole run: chunk after chunk, pure targets beside the doors, the sum kept after each so that it can go on later."""

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from chaos.fuzz.campaign_call import Campaign, Order
from chaos.fuzz.doors_call import DOORS, run_doors
from chaos.fuzz.plan import Chunk, chunks_of
from chaos.fuzz.pure import TARGETS
from chaos.fuzz.result import Result, Tried, result_of


@dataclass(frozen=True, slots=True)
class Wanted:
    """``targets``: names, all where none is given. ``coverage_s``: each pure target so long steered by coverage first,
    in every chunk. ``folder``: inputs that broke something, and the state of the run.
    """

    inputs: int
    seed: int
    folder: Path
    targets: Sequence[str] = ()
    coverage_s: float = 0.0
    tell: bool = True

    def chunks(self) -> list[Chunk]:
        """Raises KeyError on a target that there is not."""
        named = {name: (TARGETS | DOORS)[name].share for name in self.targets or (*TARGETS, *DOORS)}
        pure = {name: share for name, share in named.items() if name in TARGETS}
        return chunks_of(self.inputs, pure, {name: share for name, share in named.items() if name in DOORS})

    @property
    def state(self) -> Path:
        """What was done so far: of this very run and no other."""
        names = "-".join(self.targets) or "all"
        return self.folder / f"state-{names}-{self.inputs}-{self.seed}.json"


def run(wanted: Wanted) -> Result:
    """Takes up where an interrupted run of the same inputs, seed and targets stopped."""
    wanted.folder.mkdir(parents=True, exist_ok=True)
    total, done = _taken_up(wanted.state)
    for number, chunk in enumerate(wanted.chunks()):
        if number < done:
            continue
        total += _chunk(chunk, wanted)
        wanted.state.write_text(json.dumps({"chunks": number + 1, "result": total.told()}))
        if wanted.tell:
            told = f"{total.inputs} of {wanted.inputs} inputs, {'nothing found' if total.good else 'SOMETHING FOUND'}"
            print(told, file=sys.stderr, flush=True)
    return total


def _taken_up(state: Path) -> tuple[Result, int]:
    if not state.exists():
        return Result(), 0
    told = json.loads(state.read_text())
    return result_of(told["result"]), int(told["chunks"])


def _chunk(chunk: Chunk, wanted: Wanted) -> Result:
    """Pure targets one after the other in a thread, the doors beside them: two cores' work."""
    with ThreadPoolExecutor(1) as pool:
        pure = pool.submit(_pure, chunk, wanted)
        at_doors = run_doors(chunk.doors, wanted.seed, wanted.folder, tell=wanted.tell) if chunk.doors else Result()
        return Result(pure.result(), seeds=(wanted.seed,)) + at_doors


def _pure(chunk: Chunk, wanted: Wanted) -> Mapping[str, Tried]:
    campaign = Campaign(wanted.folder, wanted.tell)
    orders = [Order(name, count, wanted.seed, first, wanted.coverage_s) for name, (first, count) in chunk.pure.items()]
    return {order.target: campaign.run(order) for order in orders}


def replay(path: Path, call_of: Callable[[str], Callable[[bytes], None]], seconds: float) -> str:
    """Gives a kept input to its target again; what came of it, in words."""
    from chaos.fuzz.found_out import place_of, target_of  # noqa: PLC0415 - of this alone

    told: list[str] = []

    def once() -> None:
        try:
            call_of(target_of(path))(path.read_bytes())
        except Exception as problem:  # noqa: BLE001 - that is what is looked for
            told.append(place_of(problem))

    thread = threading.Thread(target=once, daemon=True)
    thread.start()
    thread.join(seconds)
    return "it does not return" if thread.is_alive() else told[0] if told else "nothing wrong"
