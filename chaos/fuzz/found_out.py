"""Inputs that broke something, kept in a folder so that they can be replayed: one for each place that broke."""

import hashlib
import json
import re
import traceback
from dataclasses import dataclass, field
from pathlib import Path

FRAMES_TOLD = 6


@dataclass(slots=True)
class Found:
    """``crashes`` and ``hangs`` count inputs; ``files`` hold the first input of each kind of failure."""

    folder: Path
    crashes: int = 0
    hangs: int = 0
    files: list[str] = field(default_factory=list)
    _places: set[str] = field(default_factory=set)

    def crash(self, target: str, data: bytes, problem: BaseException) -> None:
        """An exception that the target does not declare."""
        self.crashes += 1
        self._keep("crash", target, data, place_of(problem), "".join(traceback.format_exception(problem)))

    def died(self, target: str, data: bytes, how: str) -> None:
        """The process ended."""
        self.crashes += 1
        self._keep("crash", target, data, how, how)

    def hang(self, target: str, data: bytes, where: str) -> None:
        """No end in time."""
        self.hangs += 1
        self._keep("hang", target, data, where, where)

    def _keep(self, kind: str, target: str, data: bytes, place: str, told: str) -> None:
        if (unique := f"{kind} {target} {place}") in self._places:
            return
        self._places.add(unique)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{target}-{kind}-{hashlib.sha256(unique.encode()).hexdigest()[:12]}.bin"
        path.write_bytes(data)
        path.with_suffix(".json").write_text(json.dumps({"target": target, "kind": kind, "place": place, "told": told}))
        self.files.append(str(path))


def place_of(problem: BaseException) -> str:
    """Type and innermost places: what makes two failures the same."""
    frames = traceback.extract_tb(problem.__traceback__)[-FRAMES_TOLD:]
    places = [f"{Path(frame.filename).name}:{frame.name}" for frame in frames]
    return f"{type(problem).__name__} at {' > '.join(places)}"


def target_of(path: Path) -> str:
    """The target that a kept input belongs to: its name begins with it."""
    return re.split("-(?:crash|hang)-", path.name)[0]
