"""`triage train`: generate (cached), fit, calibrate, export, evaluate, report. Help needs none of its packages."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.recipe import Recipe
from training.recipe_in import load_recipe

if TYPE_CHECKING:
    from training.run_out import Run

app = typer.Typer(help="Train what triton_models/ serves.", invoke_without_command=True, add_completion=False)
HERE = Path(__file__).parent
DEFAULT_CONFIG = HERE / "configs" / "head_ct_lesion.toml"

ConfigOption = Annotated[Path, typer.Option(help="The recipe.", exists=True, dir_okay=False)]
CacheOption = Annotated[Path | None, typer.Option(help="Cache for slices and checkpoints, outside the clone.")]
RealDicom = Annotated[
    Path | None, typer.Option(envvar="TRIAGE_REAL_DICOM", help="Bleed-free real CT, for false alarms.", exists=True)
]
RealPng = Annotated[
    Path | None, typer.Option(envvar="TRIAGE_REAL_PNG", help="Bleed-free 8-bit slices (0…255 HU).", exists=True)
]
Hosts = Annotated[
    Path | None,
    typer.Option(
        envvar="TRIAGE_HOSTS",
        help="Bleed-free real slices (.dcm, 8-bit .png) for the recipe's second fit: bleeds are planted in them.",
        exists=True,
        file_okay=False,
    ),
]
HostsNamed = Annotated[
    str,
    typer.Option(
        envvar="TRIAGE_HOSTS_NAMED",
        help="With --hosts: whose slices they are and their licence, in one line. Graph, report and card say it.",
    ),
]


@app.callback()
def train(  # noqa: PLR0913, PLR0917  # Typer's options are the arguments
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    cache: CacheOption = None,
    models: Annotated[Path | None, typer.Option(help="Model repository to write into.")] = None,
    reports: Annotated[Path | None, typer.Option(help="Where report and card go.")] = None,
    real_dicom: RealDicom = None,
    real_png: RealPng = None,
    hosts: Hosts = None,
    hosts_named: HostsNamed = "",
    studies: Annotated[int, typer.Option(help="Fresh studies that the card is made from; 0: no card.", min=0)] = 20,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the checkpoint of this recipe.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Run the whole recipe; goes on from its checkpoint when it was cut off."""

    def prepared(*, learned: bool = False) -> Run:
        from training.run_out import Run  # noqa: PLC0415  # PyTorch and the rest, only for work

        recipe, kept = _recipe(config), cache or cache_dir()
        place = kept / "experiments" / recipe.variant  # what stands on a base never replaces what is shipped
        run = Run(
            recipe,
            kept,
            models or (place / "models" if recipe.variant else HERE.parent / "triton_models"),
            reports or (place / "reports" if recipe.variant else HERE / "reports"),
            Console(stderr=True),
            config,
        )
        return run if hosts is None or not learned else run.second(hosts, hosts_named, (real_dicom, real_png))

    context.obj = prepared
    if context.invoked_subcommand is None:
        from training.run_out import TO_REPORT  # noqa: PLC0415  # as above

        prepared().require(TO_REPORT)
        run = prepared(learned=True)
        if hosts is None and run.recipe.hosts is not None:
            run.console.print("no --hosts: the first fit, without real slices, is all", style="yellow")
        run.apart((real_dicom, real_png))
        served = run.fitted(fresh=fresh)
        run.exported(served)
        run.evaluated(real_dicom, real_png)
        if studies:
            run.carded(studies, real_dicom)


@app.command()
def slices(context: typer.Context) -> None:
    """Only draw the phantom slices into the cache."""
    run: Run = context.obj()
    for name in run.recipe.sets:
        run.table(name)


@app.command()
def evaluate(context: typer.Context, real_dicom: RealDicom = None, real_png: RealPng = None) -> None:
    """Only evaluate the exported model and write the report; `--hosts`, given before it, as in the fit."""
    context.obj(learned=True).evaluated(real_dicom, real_png)


@app.command()
def ablate(  # Typer's options
    context: typer.Context,
    configs: Annotated[list[Path], typer.Argument(help="Recipes: one row each.", exists=True, dir_okay=False)],
    seeds: Annotated[int, typer.Option(help="How many seeds of each.", min=1)] = 3,
    once: Annotated[
        list[Path] | None, typer.Option(help="One more recipe, with one seed.", exists=True, dir_okay=False)
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Of every fit, instead of the recipes'.", min=1)] = None,
    heads: Annotated[int | None, typer.Option(help="To train on, instead of the recipes'.", min=1)] = None,
    real_dicom: RealDicom = None,
) -> None:
    """Fit recipes with several seeds and write the table of what each is worth."""
    from training.ablation_out import Size, ablated  # noqa: PLC0415  # PyTorch and the rest, only for work

    run: Run = context.obj()
    try:
        rows = dict.fromkeys(configs, seeds) | {one: 1 for one in once or () if one not in configs}
        ablated(rows, Size(epochs, heads), run, real_dicom)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="CONFIGS") from fault
    run.console.print(f"wrote {run.reports / 'ablation.md'}", highlight=False, soft_wrap=True)


@app.command(name="brain-mask")
def brain_mask(
    context: typer.Context,
    epochs: Annotated[int, typer.Option(help="Over 756 slices.", min=1)] = 30,
    seed: Annotated[int, typer.Option(help="Of weights, order and augmentation.")] = 7,
    version: Annotated[int, typer.Option(help="Version folder.", min=1)] = 1,
    evaluate_only: Annotated[bool, typer.Option("--evaluate-only", help="Only judge the exported one again.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Train triton_models/brain_mask, the model that says where the brain is. Some minutes."""
    from training.brain.run_out import judge_again, make  # noqa: PLC0415  # heavy: only for work

    run: Run = context.obj()
    if evaluate_only:
        judge_again(run.models, run.reports, version, run.cache)
    else:
        make(epochs, seed, run.models, run.reports, version, run.cache)


@app.command(name="demo-heads")
def demo_heads(context: typer.Context, file: Annotated[Path, typer.Argument(help="The .npz to write.")]) -> None:
    """Render the demo's phantom heads (seeds of their own) into one small file."""
    context.obj().demo_heads(file)


def _recipe(config: Path) -> Recipe:
    try:
        return load_recipe(config)
    except ValueError as fault:
        raise typer.BadParameter(str(fault), param_hint="--config") from fault


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/lesion-triage`, by default under ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lesion-triage"
