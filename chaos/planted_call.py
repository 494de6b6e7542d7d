"""A copy of our services' tree with a bug in it."""

import shutil
from pathlib import Path

from chaos.planted import Bug
from launch.stack.service import PACKAGE_ROOT

PACKAGES = ("contracts", "producer", "worker", "worklist", "launch")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "demo_heads.*")


def copied(into: Path, root: Path = PACKAGE_ROOT) -> Path:
    """The packages that the services run from."""
    for package in PACKAGES:
        shutil.copytree(root / package, into / package, ignore=LEFT_OUT)
    return into


def spoilt(into: Path, bug: Bug, root: Path = PACKAGE_ROOT) -> Path:
    """The same with the bug in it. Raises NotPlanted."""
    source = copied(into, root) / bug.file
    source.write_text(bug.planted(source.read_text(encoding="utf-8")), encoding="utf-8")
    return into
