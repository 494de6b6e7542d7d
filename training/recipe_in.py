"""Recipes from files; one may stand on another: `base = "head_ct_lesion.toml"`, and then only what differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.recipe import Recipe, over, read_table, recipe_of

DEEPEST = 5  # bases of bases


def load_recipe(file: Path) -> Recipe:
    """The recipe of a file.

    Raises:
        ValueError: names the file, and the key where one is at fault.
    """
    table = _table(file, DEEPEST)
    variant = table.pop("variant", "")
    try:
        return recipe_of({**table, "variant": variant})
    except ValueError as fault:
        raise ValueError(f"{file}: {fault}") from fault


def _table(file: Path, deeper: int) -> dict[str, Any]:
    try:
        table = read_table(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"{file}: cannot be read: {fault}") from fault
    except ValueError as fault:
        raise ValueError(f"{file}: {fault}") from fault
    base = table.pop("base", None)
    if base is None:
        return table
    if not isinstance(base, str) or deeper == 0:
        raise ValueError(f"{file}: base: must name one recipe file, {DEEPEST} deep at most, and not itself")
    if not (file.parent / base).is_file():
        raise ValueError(f"{file}: base: there is no {file.parent / base}")
    return over(_table(file.parent / base, deeper - 1), {"variant": file.stem, **table})
