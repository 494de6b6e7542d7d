"""`python -m bench [NAME…] [--json] [--keep]`: run benches, print figures, keep them dated under bench/results/."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.figure import Figure, this_machine

RESULTS = Path(__file__).parent / "results"
# name → module:function without arguments, imported only when it is run; each gives figures.
BENCHES = {
    "model_speed": "bench.model_speed:model_speed",
    "membership": "bench.membership:membership",
    "phantom_speed": "bench.phantom_speed:phantom_speed",
}


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0 when every figure holds its aim."""
    options = _options(arguments)
    machine = this_machine().told()
    figures = [figure.told() for name in options.names for figure in _bench(name)()]
    result = {"machine": machine, "figures": figures}
    print(json.dumps(result) if options.json else _table(result))
    if options.keep:
        _keep(result, options.names)
    return 0 if all(figure["holds"] for figure in figures) else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(BENCHES)} (all by default)")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--keep", action="store_true", help="also write bench/results/DATE-NAMES.json")
    options = parser.parse_args(arguments)
    options.names = options.names or list(BENCHES)
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    return options


def _bench(name: str) -> Callable[[], list[Figure]]:
    module, _, function = BENCHES[name].partition(":")
    found: Callable[[], list[Figure]] = getattr(import_module(module), function)
    return found


def _table(result: dict[str, Any]) -> str:
    m = result["machine"]
    lines = [f"{m['processor']}, {m['cores']} cores, load {m['load']}, Python {m['python']}"]
    for f in result["figures"]:
        held = "holds" if f["holds"] else "MISSED"
        lines.append(
            f"{f['name']}: {f['ours']} (anchor {f['anchor']}, ×{f['ratio']}; aim {f['aim']}: {held})\n  {f['note']}"
        )
    return "\n".join(lines)


def _keep(result: dict[str, Any], names: list[str]) -> None:
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{datetime.now(UTC):%Y-%m-%d}-{'-'.join(names)}.json"
    file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
