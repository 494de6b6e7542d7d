"""Wall clocks that jump: a small library preloaded into a service, and a file that says how far ahead it is.

Not libfaketime: 0.9.10 makes Python's ``time.sleep`` fail with EINVAL, because it also takes part in monotonic sleeps.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launch.stack.part import ProgramMissing, StartFailed

SOURCE = Path(__file__).with_name("shim") / "clock.c"
SECOND_NS = 1_000_000_000
COMPILE_LIMIT_S = 60


class Clock:
    """The wall clock of one process. Monotonic clocks, waits and the times of files stay as they are."""

    def __init__(self, file: Path, library: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._library = file.resolve(), library
        self._file.write_bytes(bytes(8))

    def ahead(self, seconds: float) -> None:
        """From now on it is that far ahead; negative: behind; 0: right. In place: the process has the file mapped."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(round(seconds * SECOND_NS).to_bytes(8, "little", signed=True))

    def environment(self) -> Mapping[str, str]:
        """For the process whose clock it is."""
        preloaded = filter(None, (os.environ.get("LD_PRELOAD", ""), str(self._library)))
        return {"LD_PRELOAD": ":".join(preloaded), "CHAOS_CLOCK_FILE": str(self._file)}


def compiled(folder: Path) -> Path:
    """The library, made in that folder when it is not there. Raises ProgramMissing and StartFailed."""
    library = folder / "clock.so"
    if library.exists():
        return library
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise ProgramMissing("wall clocks are moved by a small C library, and there is no compiler: apt install gcc")
    folder.mkdir(parents=True, exist_ok=True)
    command = [compiler, "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_LIMIT_S, check=False)
    if done.returncode:
        raise StartFailed(f"{SOURCE.name} could not be compiled.\n{done.stderr}")
    return library
