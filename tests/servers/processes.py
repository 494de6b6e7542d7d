"""What runs on this machine, as the kernel tells it: to prove that nothing is left behind."""

import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 30.0  # for something that must come true on a busy machine; no test measures speed


def running_in_group(group: int) -> list[int]:
    """Processes of a process group that have not ended (zombies have)."""
    return [pid for pid, state, of in _processes() if of == group and state not in "ZX"]


def runs(pid: int) -> bool:
    """Whether that process runs."""
    return any(number == pid and state not in "ZX" for number, state, _ in _processes())


def becomes_true(question: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    """Asks until the answer is yes; False when it stays no."""
    end = time.monotonic() + within_s
    while not question():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def _processes() -> list[tuple[int, str, int]]:
    return [found for stat in Path("/proc").glob("[0-9]*/stat") if (found := _read(stat)) is not None]


def _read(stat: Path) -> tuple[int, str, int] | None:
    """Number, state letter, process group (proc(5): the fields after the name in brackets)."""
    try:
        state, _, group, *_ = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    return int(stat.parent.name), state, int(group)


def mentioning(text: str) -> list[int]:
    """Processes whose arguments or environment hold the text: everything that a stack in that folder started."""
    needle = text.encode()
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if needle in _said_to(folder)]


def _said_to(process: Path) -> bytes:
    """Arguments and environment; empty for a process that has ended."""
    try:
        return (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    except OSError:
        return b""
