"""Fits recipes with several seeds and writes what each is worth; a trial that is done is not done again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from training.evaluation.training_report import without_nan
from training.fit.ablation import Trial, as_json, judged, markdown, on_real
from training.real_in import read_ct_folder
from training.recipe import Recipe
from training.recipe_in import load_recipe
from training.run_out import Run
from training.slices_out import SliceTable

SETS = ("hard", "held_out")  # what is judged: neither trained nor calibrated on


@dataclasses.dataclass(frozen=True)
class Size:
    """How large every trial is. None: as the recipes say. The same of all trials, or they could not be compared."""

    epochs: int | None = None
    heads: int | None = None  # of the training set


def ablated(configs: Mapping[Path, int], size: Size, run: Run, real_dicom: Path | None) -> list[Trial]:
    """Every recipe with its number of seeds; writes `ablation.md` and `.json` after each fit."""
    trials: list[Trial] = []
    tables: dict[str, dict[str, SliceTable]] = {}
    for config, seeds in configs.items():
        recipe = sized(load_recipe(config), size)
        for nth in range(seeds):
            fit = dataclasses.replace(recipe.fit, seed=recipe.fit.seed + nth)
            one = Run(dataclasses.replace(recipe, fit=fit), run.cache, run.models, run.reports, run.console, config)
            one.tables = tables.setdefault(str(recipe.sets), {})
            run.console.print(f"{config.stem}, seed {fit.seed}")
            trials.append(_trial(one, config.stem, real_dicom))
            _write(trials, max(configs.values()), size, run)
    return trials


def sized(recipe: Recipe, size: Size) -> Recipe:
    """The recipe at the ablation's size."""
    fit = recipe.fit if size.epochs is None else dataclasses.replace(recipe.fit, epochs=size.epochs)
    sets = recipe.sets
    if size.heads is not None:
        sets = {**sets, "train": dataclasses.replace(sets["train"], heads=size.heads)}
    return dataclasses.replace(recipe, fit=fit, sets=sets)


def _trial(run: Run, option: str, real_dicom: Path | None) -> Trial:
    kept = run.checkpoint.with_suffix(f".{'real' if real_dicom else 'phantom'}.json")
    if not (kept.exists() and run.checkpoint.exists()):
        done = run.trained()
        served = run.calibrated(done.network)
        threshold = run.calibration.thresholds["any"]
        told = {"epochs": float(done.epochs), "fit_s": done.spent_s}
        for name in SETS:
            if name in run.recipe.sets:
                told |= {f"{name}.{key}": value for key, value in judged(served, run.table(name), threshold).items()}
        if real_dicom is not None:
            found = on_real(served, read_ct_folder(real_dicom), threshold)
            told |= {f"real.{key}": value for key, value in found.items()}
        kept.write_text(json.dumps(told), "utf-8")
    return Trial(option, run.settings.seed, json.loads(kept.read_text("utf-8")))


def _write(trials: Sequence[Trial], seeds: int, size: Size, run: Run) -> None:
    words = (
        f"Each recipe of `training/configs/` fitted with up to {seeds} seeds"
        f"{'' if size.epochs is None else f', {size.epochs} epochs'}"
        f"{'' if size.heads is None else f', {size.heads} training heads'}; mean (lowest–highest) over the seeds. "
        "Operating points are those of each fit's own validation. Phantoms do not predict real scans: read the spread."
    )
    run.reports.mkdir(parents=True, exist_ok=True)
    (run.reports / "ablation.md").write_text(markdown(trials, words), "utf-8")
    told = json.dumps(without_nan(as_json(trials, words)), indent=1, ensure_ascii=False)
    (run.reports / "ablation.json").write_text(told + "\n", "utf-8")
