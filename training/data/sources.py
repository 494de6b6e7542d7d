"""The layouts by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from training.data.cq500_in import Cq500Source
from training.data.folder_in import FolderSource
from training.data.physionet_in import PhysionetSource
from training.data.rsna_in import RsnaSource
from training.data.study import StudySource

LAYOUTS: dict[str, Callable[[Path, Path | None], StudySource]] = {
    "rsna": RsnaSource,
    "cq500": Cq500Source,
    "physionet": PhysionetSource,
    "folder": FolderSource,
}


def open_source(layout: str, path: Path, labels: Path | None = None) -> StudySource:
    """The source of that layout. `labels`: another table than the layout's own; for a folder the only one.

    Raises:
        ValueError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}: {', '.join(LAYOUTS)}")
    return LAYOUTS[layout](path, labels)
