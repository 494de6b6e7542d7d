"""The whole recipe as one typed value: what is generated, how it is trained, what is promised. Read from TOML."""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass
from typing import Any

GENERATOR_VERSION = 2  # raise it when the phantom's code changes what it draws: cached slices are then drawn again


@dataclass(frozen=True)
class SliceSet:
    """One set of phantom heads. Seeds of different sets never meet: first_seed … first_seed + heads."""

    first_seed: int
    heads: int
    slices_per_head: int
    lesion_share: float
    difficulty: tuple[float, float]
    held_out_lesions: bool = False
    held_out_scanner: bool = False
    series: bool = False  # neighbouring slices from below upwards, as a scanner sends them, instead of scattered ones

    @property
    def key(self) -> str:
        """Names the cache folder: another recipe or generator never reads these slices."""
        drawn = {name: value for name, value in asdict(self).items() if name != "series" or value}
        told = json.dumps([GENERATOR_VERSION, drawn], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class FitSettings:
    """How the network is trained."""

    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    widths: tuple[int, ...]
    # Processor time, so that a busy machine trains the same network; the schedule ends early, at its lowest rate,
    # rather than exceed it.
    budget_s: float


@dataclass(frozen=True)
class Recipe:
    """Everything `triage train` needs."""

    name: str
    false_alarm_share: float  # of bleed-free validation slices, at which the threshold of `any` is set
    sets: dict[str, SliceSet]
    fit: FitSettings


def read_recipe(text: str) -> Recipe:
    """The recipe in a TOML text.

    Raises:
        ValueError: a table or key is missing, unknown or of the wrong kind.
    """
    try:
        raw = tomllib.loads(text)
        sets = {name: SliceSet(**_tupled(table)) for name, table in raw["sets"].items()}
        fit = FitSettings(**_tupled(raw["fit"]))
        return Recipe(str(raw["name"]), float(raw["false_alarm_share"]), sets, fit)
    except (KeyError, TypeError, tomllib.TOMLDecodeError) as fault:
        raise ValueError(f"the training recipe is not understood: {fault}") from fault


def _tupled(table: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in table.items()}
