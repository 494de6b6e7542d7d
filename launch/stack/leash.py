"""A child on a leash: it dies when the process that started it dies, even by kill -9.

Run as a script it asks the kernel for a signal at its parent's death (prctl PR_SET_PDEATHSIG, kept across exec) and
then becomes the program. The kernel means the parent *thread*, so every child is started from one thread that lives as
long as the process. Standard library only: the script runs without site-packages to start in milliseconds.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

PR_SET_PDEATHSIG = 1
PARENT_GONE = 99  # exit status when the parent died before the leash was on


def spawn(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, at_parents_death: signal.Signals
) -> "subprocess.Popen[bytes]":
    """Starts the command in a session of its own, output appended to the log file. Raises OSError."""
    leashed = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(int(at_parents_death)), *command]
    return _spawner().submit(_popen, leashed, env, cwd, log).result()


@cache
def _spawner() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


def _popen(command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the supervisor only; it stops the parts in order
        )


def main(arguments: Sequence[str]) -> None:
    """``PARENT_PID SIGNAL PROGRAM ARGUMENT…``: puts the leash on and becomes the program."""
    parent, signal_number, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(PARENT_GONE)
    os.execvp(command[0], command)  # noqa: S606  # becoming the program is the point; there is no shell


if __name__ == "__main__":
    main(sys.argv[1:])
