"""Conversion of somebody else's model in a child process that can be killed and has little to spend.

A TorchScript file is a program, and a state dict is unpickled by a reader that has had holes. The child protects the
session and the repository: it may hang, crash, eat memory or fill a disk, and ends at a limit; it has no network where
the system lets us take it away (`unshare`), no environment of ours, and the repository gets nothing from it but an ONNX
file that is checked like any other. It does *not* hide the user's files from a program that means harm: what comes
from somebody you do not trust is converted in a container, and the ONNX file imported.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from contracts.errors import ModelRefused

ROOT = Path(__file__).parents[2]
CHILD = "training.serving.convert_child"
WALL_S, CPU_S = 600, 240  # a large network exports in half a minute of a free core; a busy machine has less
MEMORY_BYTES = 24 * 1024**3  # of addresses: PyTorch's CUDA build alone maps about ten
FILE_BYTES = 2 * 1024**3  # what one protobuf can hold
TOLD = 600  # characters of the child's last words


def converted(kind: str, source: Path, declaration: str, target: Path, *, wall_s: float = WALL_S) -> None:
    """``source`` as ONNX in ``target``.

    Raises:
        ModelRefused: the child did not finish, in time or at all; its last words are told.
    """
    with tempfile.TemporaryDirectory(prefix="triage-import-") as folder:
        produced = Path(folder) / "model.onnx"
        command = [sys.executable, "-m", CHILD, kind, str(source.resolve()), str(produced), declaration]
        _run(command, Path(folder), source, wall_s)
        if not produced.is_file():
            raise ModelRefused(f"{source}: the conversion wrote nothing")
        shutil.copyfile(produced, target)


def _run(command: list[str], folder: Path, source: Path, wall_s: float) -> None:
    with (folder / "words").open("w+b") as words:
        child = subprocess.Popen(
            [*_without_network(), *command],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            start_new_session=True,
            preexec_fn=_limit,  # noqa: PLW1509  # this process starts no threads that hold locks the child needs
        )
        try:
            code = child.wait(wall_s)
        except subprocess.TimeoutExpired:
            raise ModelRefused(f"{source}: the conversion took longer than {wall_s:g} s and was ended") from None
        finally:
            _end(child)
        if code:
            words.seek(0)
            last = " ".join(words.read().decode("utf-8", "replace").split())[-TOLD:]
            raise ModelRefused(f"{source}: the conversion failed ({_ending(code)}): {last}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """The whole session: whatever the child has started too."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _ending(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def _limit() -> None:
    limits = {
        resource.RLIMIT_CPU: CPU_S,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
    }
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours but what finding Python takes."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG") if name in os.environ}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@cache
def _without_network() -> list[str]:
    """A network namespace of its own, which holds nothing, where this system allows that."""
    program = shutil.which("unshare")
    if program is None:
        return []
    tried = subprocess.run([program, "-rn", "true"], capture_output=True, check=False, timeout=10)
    return [] if tried.returncode else [program, "-rn", "--"]
