"""The whole recipe as one typed value: what is generated, how it is trained, what is promised. Read from TOML."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from training.fit.options import Count, FitSettings, NotNegative, Positive, Share, Some

FaultName = Literal[  # training.data.study.Fault, whose packages a recipe is read without
    "corrupt",
    "empty",
    "not_hu",
    "spacing",
    "mixed_spacing",
    "orientation",
    "label_missing",
    "label_contradiction",
    "empty_class",
    "duplicate",
    "leak",
    "not_head",
    "patient_unknown",
]
GENERATOR_VERSION = 4  # raise it when the phantom's code changes what it draws: cached slices are then drawn again


@dataclass(frozen=True)
class SliceSet:
    """One set of phantom heads. Seeds of different sets never meet: first_seed … first_seed + heads."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    first_seed: Some
    heads: Count
    slices_per_head: Count
    lesion_share: Share
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
class RealData:
    """A labelled data set to learn from, in one of the layouts of training.data.sources; split by patient."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    layout: Literal["rsna", "cq500", "physionet", "folder"]
    path: str  # beside the recipe, unless absolute
    labels: str = ""  # another table than the layout's own; for a folder the only one
    phantoms: bool = True  # learn from the phantom sets as well
    allow: tuple[FaultName, ...] = ()  # rules of `triage data check` that may be broken: told, and trained on


@dataclass(frozen=True)
class HostSet:
    """A second fit, from the first one's weights: the train set and pictures of real bleed-free slices together.

    Which slices is said by whoever trains (`--hosts`); without them the first fit is all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    first_seed: Some
    pictures: Count  # drawn from the hosts in turn
    lesion_share: Share  # of them get a bleed of their own
    mimic_share: Share  # how often each kind of mimic is drawn into a picture
    least_contrast_hu: NotNegative  # phantom slices whose lesion differs less from the brain around it are left out
    epochs: Count
    learning_rate: Positive


@dataclass(frozen=True)
class Recipe:
    """Everything `triage train` needs."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$", strict=True)]
    false_alarm_share: Share  # of bleed-free validation slices, at which the threshold of `any` is set
    sets: dict[str, SliceSet]
    fit: FitSettings
    data: RealData | None = None
    hosts: HostSet | None = None
    variant: str = ""  # of which base this is an experiment: its products never go where the base's go


def read_recipe(text: str) -> Recipe:
    """The recipe in a TOML text that stands on no base.

    Raises:
        ValueError: a table or key is missing, unknown or of the wrong kind; the sentence names it.
    """
    return recipe_of(read_table(text))


def read_table(text: str) -> dict[str, Any]:
    """The TOML text as a table.

    Raises:
        ValueError: it is no TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise ValueError(f"the training recipe is not understood: {fault}") from fault


def recipe_of(table: Mapping[str, Any]) -> Recipe:
    """The recipe in a table.

    Raises:
        ValueError: as in `read_recipe`.
    """
    try:
        recipe: Recipe = TypeAdapter(Recipe).validate_python(dict(table))
    except ValidationError as faults:
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in faults.errors())
        raise ValueError(f"the training recipe is not understood: {told}") from faults
    problem = _contradiction(recipe.fit) or _shared_seeds(recipe.sets)
    if problem:
        raise ValueError(f"the training recipe is not understood: {problem}")
    return recipe


def _contradiction(fit: FitSettings) -> str:
    """Options that cannot go together."""
    rules = {
        "fit.freeze, fit.adapter_rank: need fit.start_from or fit.pretrain; chance weights are not worth keeping": bool(
            fit.freeze or fit.adapter_rank
        )
        and not fit.start_from
        and fit.pretrain == "none",
        "fit.teacher: a teacher is not taught by one; set fit.network to student": bool(fit.teacher)
        and fit.network == "teacher",
        "fit.pretrain, fit.freeze, fit.adapter_rank: only of the student": fit.network == "teacher"
        and bool(fit.pretrain != "none" or fit.freeze or fit.adapter_rank),
        "fit.widths: at least two levels": len(fit.widths) < 2,
    }
    return next((sentence for sentence, broken in rules.items() if broken), "")


def _shared_seeds(sets: Mapping[str, SliceSet]) -> str:
    """A head that is learned from and judged on measures nothing."""
    inorder = sorted(sets.items(), key=lambda item: item[1].first_seed)
    for (before, one), (after, other) in pairwise(inorder):
        if one.first_seed + one.heads > other.first_seed:
            return f"sets.{before}, sets.{after}: share heads from seed {other.first_seed} on"
    return ""


def over(base: Mapping[str, Any], table: Mapping[str, Any]) -> dict[str, Any]:
    """The base with the table's keys put over it, table by table."""
    merged = dict(base)
    for key, value in table.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = over(merged[key], value) if both else value
    return merged
