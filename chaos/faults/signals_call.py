"""Signals to a whole process group, as the machine below a container freezes all of it."""

import os
import signal
from collections.abc import Sequence

from launch.stack.part import Part


def freeze(parts: Sequence[Part]) -> None:
    """SIGSTOP: it holds its connections and answers nobody."""
    _signal(parts, signal.SIGSTOP)


def thaw(parts: Sequence[Part]) -> None:
    """SIGCONT: it goes on as if no time had passed."""
    _signal(parts, signal.SIGCONT)


def _signal(parts: Sequence[Part], number: signal.Signals) -> None:
    for part in parts:
        if part.pid:
            os.killpg(part.pid, number)  # every part leads a group of its own (launch/stack/leash.py)
