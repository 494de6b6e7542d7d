"""Do phantoms resemble what a network trained on patients has seen? BLAST-CT, which never saw one, is asked.

Each study is judged with its bleed and again without it (its twin: the same head, scanner and noise). Where the two
agree with the truth, the phantom's bleeds look like bleeds and its heads and mimics do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.study import Study
from training.phantom.atlas_in import Atlas
from training.phantom.lesions import CHANNEL_OF, CHANNELS
from training.phantom.series import DrawnSeries, SeriesPlan, Wish, draw_series, plan_series

MASS = CHANNELS.index("mass")
SHOWN = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "intraventricular")
FIRST_SEED = 1 << 44
SILENT_ML = 0.5  # less than this on a twin counts as silence: a few voxels at a noisy edge


class Judge(Protocol):
    """Marks what it takes for blood."""

    def blood(self, study: Study) -> NDArray[np.bool_]:
        """(n, H, W)."""
        ...


@dataclass(frozen=True)
class Verdict:
    """One study. Volumes in ml; `dice` of the judge's blood and the planted one."""

    seed: int
    kinds: tuple[str, ...]
    scanner_family: str
    slice_mm: float
    planted_ml: float
    found_ml: float
    dice: float
    twin_ml: float


def showpieces(seed: int) -> tuple[SeriesPlan, ...]:
    """One study a kind of bleed, routine 5 mm slices, neither plain nor hopeless: some minutes each to judge."""
    wishes = (Wish(lesion=kind, slice_mm=5.0, slices=30, difficulty=(0.2, 0.5), plain=True) for kind in SHOWN)
    return tuple(plan_series(FIRST_SEED + seed * 100 + nth, wish) for nth, wish in enumerate(wishes))


def judged(
    plans: Iterable[SeriesPlan], atlas: Atlas, judge: Judge, tell: Callable[[Verdict], None] = lambda _one: None
) -> list[Verdict]:
    """One verdict a plan that has a bleed; masses and clean heads are passed over."""
    verdicts = []
    for plan in plans:
        if any(CHANNEL_OF[kind] != MASS for kind in plan.kinds):
            verdicts.append(_verdict(plan, atlas, judge))
            tell(verdicts[-1])
    return verdicts


def _verdict(plan: SeriesPlan, atlas: Atlas, judge: Judge) -> Verdict:
    sick, twin = draw_series(plan, atlas), draw_series(replace(plan, lesions=()), atlas)
    planted = _bleeds(sick)
    found, taken = judge.blood(sick.study), judge.blood(twin.study)
    voxel_ml = float(np.prod(sick.study.spacing_mm)) / 1000
    both = int(planted.sum() + found.sum())
    return Verdict(
        seed=plan.seed,
        kinds=plan.kinds,
        scanner_family=plan.scanner.family,
        slice_mm=plan.scanner.slab_mm,
        planted_ml=round(float(planted.sum() * voxel_ml), 2),
        found_ml=round(float(found.sum() * voxel_ml), 2),
        dice=round(2 * int((planted & found).sum()) / both, 3) if both else 1.0,
        twin_ml=round(float(taken.sum() * voxel_ml), 2),
    )


def _bleeds(drawn: DrawnSeries) -> NDArray[np.bool_]:
    planted = np.zeros(drawn.study.hu.shape, bool)
    for lesion, mask in zip(drawn.plan.lesions, drawn.each, strict=True):
        if CHANNEL_OF[lesion.kind] != MASS:
            planted |= mask
    return planted


def summary(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Figures for the model card, and every verdict."""
    if not verdicts:
        return {"judge": "BLAST-CT", "studies": 0, "verdicts": []}
    dice = [one.dice for one in verdicts]
    twins = [one.twin_ml for one in verdicts]
    return {
        "judge": "BLAST-CT",
        "studies": len(verdicts),
        "median_dice": round(float(np.median(dice)), 3),
        "lowest_dice": min(dice),
        "silent_twins": sum(ml < SILENT_ML for ml in twins),
        "silent_below_ml": SILENT_ML,
        "median_twin_ml": round(float(np.median(twins)), 2),
        "highest_twin_ml": max(twins),
        "verdicts": [asdict(one) for one in verdicts],
    }


def card_lines(told: Mapping[str, Any] | None) -> list[str]:
    """For the model card; nothing where nobody judged."""
    if not told or not told["studies"]:
        return []
    rows = ["| lesions | planted ml | found ml | Dice | twin ml |", "|---|---|---|---|---|"]
    for one in told["verdicts"]:
        kinds = " + ".join(one["kinds"]).replace("_", " ")
        rows.append(f"| {kinds} | {one['planted_ml']} | {one['found_ml']} | {one['dice']} | {one['twin_ml']} |")
    shown, silent = told["studies"], told["silent_twins"]
    text = (
        f"{told['judge']}, trained on patients only, was shown {shown} bleeding phantoms and each one's twin without"
        f" the bleed: median Dice {told['median_dice']}; {silent} of {shown} twins silent"
        f" (below {told['silent_below_ml']} ml)."
    )
    return ["## Realism of the phantoms", "", text, "", *rows, ""]
