"""What a model is said to be trained on: written from the recipe, and from what its first weights say of themselves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from training.fit.data import Unfit
from training.fit.weights_in import SHIPPED
from training.onnx_in import OnnxModel
from training.recipe import Recipe

LONGEST_NAME = 120  # characters


@dataclass(frozen=True)
class Note:
    """Stands beside a checkpoint as JSON. hosts: digests of the real slices that bleeds were planted in."""

    trained_on: str = ""
    hosts: frozenset[str] = frozenset()


def note_of(weights: str) -> Note:
    """Of weights that a recipe names; empty where nothing is said."""
    file = SHIPPED if weights == "shipped" else Path(weights)
    if file.suffix == ".onnx":
        return Note(OnnxModel(file).metadata.get("trained_on", "")) if file.is_file() else Note()
    beside = file.with_suffix(".json")
    if not beside.is_file():
        return Note()
    told = json.loads(beside.read_text("utf-8"))
    return Note(str(told.get("trained_on", "")), frozenset(told.get("hosts", ())))


def note_text(note: Note) -> str:
    """What `note_of` reads."""
    return json.dumps({"trained_on": note.trained_on, "hosts": sorted(note.hosts)}, indent=1, ensure_ascii=False)


def checked_name(named: str) -> str:
    """Whose slices the hosts are; it is written into the graph and Triton's configurations.

    Raises:
        Unfit: it is empty, longer than a line of LONGEST_NAME characters, or has characters that cannot stand there.
    """
    name = named.strip()
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable() or set(name) & {'"', "\\"}:
        told = f"one line of at most {LONGEST_NAME} printable characters without quotes and backslashes"
        raise Unfit(f"--hosts-named: say whose slices these are and their licence: {told}")
    return name


def trained_on(recipe: Recipe, hosts: int, named: str, begun: dict[str, str]) -> str:
    """Begins with "synthetic" only where no real bleed can have been learned from.

    `begun`: what the weights say that the fit began with, or was taught by, by what they are for.
    """
    parts = [] if recipe.data and not recipe.data.phantoms else ["phantoms"]
    parts += [f"{hosts} real slices without any ({named})"] if hosts else []
    told = f"synthetic bleeds, in {' and in '.join(parts)}" if hosts else "synthetic"
    if recipe.data:
        drawn = f", and {told if hosts else 'phantoms'}" if parts else ""
        told = f"real studies with labels (layout {recipe.data.layout}){drawn}"
    elif recipe.fit.unlabelled and (recipe.fit.pretrain != "none" or recipe.fit.pseudo != "none"):
        told = f"real scans without labels, and {told}"
    for what, origin in begun.items():
        before = f"{what} trained on {origin or 'what nobody says'}"
        if not origin.startswith("synthetic"):
            told = f"{before}, then {told}"
        elif origin != "synthetic":
            told = f"{told}, after {before}"
    return told
