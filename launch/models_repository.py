"""The Triton model repository on disk: which versions there are, which one is served, and moving that on and back.

Which version is served stands in the model's two configurations, together with that version's labels and operating
points; each engine reads one of the two. A promotion writes both, each in one step, and puts both back if the second
fails; what was served before is kept in `promoted.txt`, newest last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.declaration import FILE, Declaration, read_declaration
from contracts.errors import ModelRefused
from contracts.model_config import CPU_FILE, GPU_FILE, configurations, labels_file
from contracts.tensors import MODELS

HISTORY, LABELS = "promoted.txt", "labels.txt"
_SERVED = re.compile(r"version_policy \{ specific \{ versions: \[ (\d+) \] \} \}")


@dataclass(frozen=True, slots=True)
class Version:
    """One version folder. ``served_by``: the engines whose configuration names it."""

    model: str
    number: int
    folder: Path
    files: tuple[str, ...]
    served_by: tuple[str, ...]
    declared: Declaration | None

    @property
    def asked_by_scoring(self) -> bool:
        """Whether the name is one of the contract's."""
        return self.model in MODELS


def versions(repository: Path) -> Iterator[Version]:
    """Every version of every model, by name and number."""
    for model in sorted(path.parent for path in repository.glob(f"*/{GPU_FILE}")):
        served = served_versions(model)
        for folder in sorted(
            (path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
        ):
            number = int(folder.name)
            files = tuple(name for name in ("model.onnx", "model.plan") if (folder / name).exists())
            engines = tuple(engine for engine, version in served.items() if version == number)
            declared = read_version(folder) if (folder / FILE).is_file() else None
            yield Version(model.name, number, folder, files, engines, declared)


def served_versions(model: Path) -> dict[str, int]:
    """Engine (GPU, CPU) → the version that its configuration names; an engine without one is left out."""
    found = {}
    for engine, name in (("GPU", GPU_FILE), ("CPU", CPU_FILE)):
        file = model / name
        named = _SERVED.search(file.read_text("utf-8")) if file.is_file() else None
        if named:
            found[engine] = int(named[1])
    return found


def read_version(folder: Path) -> Declaration:
    """What a version declares.

    Raises:
        ModelRefused: there is no declaration, or it is not understood.
    """
    file = folder / FILE
    if not file.is_file():
        raise ModelRefused(f"There is no {file}: only a version that declares itself can be served.")
    return read_declaration(file.read_text("utf-8"), str(file))


def checked_version(folder: Path) -> Declaration:
    """The declaration of a version whose graph is the one declared, under the name of its folder.

    Raises:
        ModelRefused: it is not.
    """
    declared, graph = read_version(folder), folder / "model.onnx"
    if declared.name != folder.parent.name:
        raise ModelRefused(f"{folder / FILE} declares {declared.name}, but lies under {folder.parent.name}.")
    if not graph.is_file():
        raise ModelRefused(f"There is no ONNX graph at {graph}.")
    if hashlib.sha256(graph.read_bytes()).hexdigest() != declared.facts.get("sha256"):
        raise ModelRefused(f"{graph} is not the file that {folder / FILE} declares: its SHA-256 differs.")
    if not (folder / "model.py").is_file():
        raise ModelRefused(f"{folder} has no model.py: the CPU's engine could not load it.")
    return declared


def promote(model: Path, number: int, take: Callable[[], bool] = lambda: True) -> int | None:
    """Serve that version from now on; returns what was served before.

    ``take`` makes a running server take the new configurations and tells whether it serves them; where it says no or
    raises, the old ones are put back.

    Raises:
        ModelRefused: the version may not be served, or the server did not take it.
    """
    declared = checked_version(model / str(number))
    before = served_versions(model).get("CPU")
    kept = {name: _read(model / name) for name in (GPU_FILE, CPU_FILE, LABELS, HISTORY)}
    told = [*(kept[HISTORY] or "").split(), *([str(before)] if before not in {None, number} else [])]
    wanted: dict[str, str | None] = {**configurations(declared, number), HISTORY: "".join(f"{n}\n" for n in told)}
    if declared.labels:
        wanted[LABELS] = labels_file(declared)
    try:
        _write(model, wanted)
        taken = take()
    except BaseException:
        _write(model, kept)
        raise
    if not taken:
        _write(model, kept)
        raise ModelRefused(f"The server did not take version {number} of {model.name}; the old one is back.")
    return before


def previous(model: Path) -> int:
    """What was served before the present version.

    Raises:
        ModelRefused: nothing is known to have been.
    """
    told = (_read(model / HISTORY) or "").split()
    if not told:
        raise ModelRefused(f"{model.name} has served no other version: there is nothing to go back to.")
    return int(told[-1])


def forget_last(model: Path) -> None:
    """After going back: the version gone back to, and the one gone back from, leave the list."""
    told = (_read(model / HISTORY) or "").split()
    _write(model, {HISTORY: "".join(f"{n}\n" for n in told[:-2])})


def _read(file: Path) -> str | None:
    return file.read_text("utf-8") if file.is_file() else None


def _write(model: Path, texts: dict[str, str | None]) -> None:
    """All are laid beside first, so that only renames are left to fail; None and empty take a file away."""
    for name, text in texts.items():
        if text:
            partial = (model / name).with_suffix(".partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text, "utf-8")
    for name, text in texts.items():
        if text:
            (model / name).with_suffix(".partial").replace(model / name)
        else:
            (model / name).unlink(missing_ok=True)
