"""One measured figure beside its anchor, and the machine it was measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """Ours and the anchor were measured in the same run; `aim` is what `ours` must reach (at least, or at most)."""

    name: str
    ours: float
    anchor: float
    aim: float
    note: str
    at_least: bool = True

    def told(self) -> dict[str, Any]:
        """The JSON object: name, ours, anchor, ratio, aim, holds, note."""
        holds = self.ours >= self.aim if self.at_least else self.ours <= self.aim
        return {
            "name": self.name,
            "ours": round(self.ours, 2),
            "anchor": round(self.anchor, 2),
            "ratio": round(self.ours / self.anchor, 3) if self.anchor else None,
            "aim": self.aim,
            "holds": holds,
            "note": self.note,
        }


@dataclass(frozen=True)
class Machine:
    """What a figure is worth: the same command elsewhere gives others."""

    processor: str
    cores: int
    memory_gib: float
    python: str
    load: float  # average of the last minute before the run: other work on the machine lowers every figure

    def told(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


def this_machine() -> Machine:
    """The machine of this run."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        _processor(),
        os.cpu_count() or 1,
        round(pages / 2**30, 1),
        platform.python_version(),
        round(os.getloadavg()[0], 2),
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
