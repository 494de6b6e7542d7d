"""Loaded studies, kept outside the clone: the second epoch reads no DICOM, and a slice is read without its study.

One folder a study, named by loader version, entry and the files' own mark. Arrays are plain `.npy`, which can be
mapped into memory slice by slice (an `.npz` cannot). Nothing that names a patient is written.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.study import Doubt, Entry, Facts, Fault, Study, StudySource, Truth

LAYOUT = 1  # raise it when a kept study is written otherwise
ARRAYS = ("hu", "z_mm", "by_slice", "masks")


class Cached:
    """A source that loads each study once. `hu` and `masks` of what it returns are read-only maps of files."""

    def __init__(self, source: StudySource, cache_dir: Path) -> None:
        self._source = source
        self._folder = cache_dir / "studies"

    @property
    def version(self) -> str:
        """The source's."""
        return self._source.version

    def entries(self) -> Sequence[Entry]:
        """The source's."""
        return self._source.entries()

    def doubts(self) -> Sequence[Doubt]:
        """The source's."""
        return self._source.doubts()

    def load(self, entry: Entry) -> Study:
        """From the cache, else from the source. A bad study is not kept: it is told again every time."""
        folder = self._folder / self._key(entry)
        if not (folder / "study.json").exists():
            write_study(self._source.load(entry), folder)
        return read_study(folder, entry)

    def _key(self, entry: Entry) -> str:
        told = [LAYOUT, self.version, entry.uid, entry.place, entry.mark, entry.any, sorted(entry.kinds)]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]


def write_study(study: Study, folder: Path) -> None:
    """All at once: a run that is cut off leaves no half study, two runs at a time write the same one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.parent.chmod(0o700)  # patients' pixels; what mkdtemp makes below is so by itself
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    truth = study.truth
    arrays: tuple[NDArray[Any] | None, ...] = (study.hu, study.z_mm, truth.by_slice, truth.masks)
    for name, array in zip(ARRAYS, arrays, strict=True):
        if array is not None:
            np.save(partial / f"{name}.npy", array, allow_pickle=False)
    (partial / "study.json").write_text(json.dumps(_told(study)), "utf-8")
    try:
        partial.rename(folder)
    except OSError:  # another run was faster
        shutil.rmtree(partial)


def _told(study: Study) -> dict[str, Any]:
    return {
        "uid": study.uid,
        "spacing_mm": study.spacing_mm,
        "any": study.truth.any,
        "by_label": dict(study.truth.by_label),
        "facts": asdict(study.facts),
        "source": study.source,
        "doubts": [asdict(doubt) for doubt in study.doubts],
    }


def read_study(folder: Path, entry: Entry) -> Study:
    """What write_study has written; the patient's key comes from the entry."""
    told = json.loads((folder / "study.json").read_text("utf-8"))
    files = {name: folder / f"{name}.npy" for name in ARRAYS}
    arrays = {name: np.load(file, mmap_mode="r", allow_pickle=False) for name, file in files.items() if file.exists()}
    return Study(
        uid=told["uid"],
        patient=entry.patient,
        hu=arrays["hu"],
        spacing_mm=tuple(told["spacing_mm"]),
        z_mm=arrays["z_mm"],
        truth=Truth(told["any"], told["by_label"], arrays.get("by_slice"), arrays.get("masks")),
        facts=Facts(**told["facts"]),
        source=told["source"],
        doubts=tuple(Doubt(Fault(d["fault"]), d["file"], d["sentence"], d["mild"]) for d in told["doubts"]),
    )
