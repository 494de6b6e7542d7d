"""Writes an operating point where the worker reads it: graph, declaration and Triton configurations of a version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx

from contracts.declaration import FILE, read_declaration
from contracts.errors import TriageError
from training.serving.export_out import write_graph, write_version


class NotWritable(TriageError):
    """Not a model version of a repository, or one without this operating point."""


def write_threshold(file: Path, label: str, threshold: float) -> list[Path]:
    """Files written, the graph first. Configurations are written only where they serve this very version.

    Raises:
        NotWritable: no declaration stands beside the graph, or it has no operating point of this label.
    """
    folder, key = file.parent, f"threshold.{label}"
    if not (folder / FILE).exists():
        raise NotWritable(f"{file}: no {FILE} stands beside it: not a version of a model repository")
    declared = read_declaration((folder / FILE).read_text("utf-8"), str(folder / FILE))
    if key not in declared.parameters:
        raise NotWritable(f"{folder / FILE}: has no operating point {key}")
    parameters = {**declared.parameters, key: f"{threshold:.4f}"}
    serve = is_served(folder)
    write_graph(onnx.load(file), parameters, file)
    write_version(replace(declared, parameters=parameters), folder, serve=serve)
    return [file, folder / FILE, *([folder.parent / "config.pbtxt"] if serve else [])]


def is_served(folder: Path) -> bool:
    """Whether the model's configuration names this version (Triton's version_policy)."""
    config = folder.parent / "config.pbtxt"
    return config.exists() and f"versions: [ {folder.name} ]" in config.read_text("utf-8")
