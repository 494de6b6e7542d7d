"""`triage phantom`: head CT studies of no patient, with their truth beside them. Help needs none of its packages."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from contracts.errors import SettingsError, TriageError

if TYPE_CHECKING:
    from training.phantom.series import SeriesPlan, Wish

app = typer.Typer(add_completion=False)
SEEDS_APART = 10_000  # --seed 2 gives none of the studies of --seed 1
HARD = (0.75, 1.0)  # faint, thin, small, isodense
FEWEST_PX = 64


@app.command()
def phantom(  # noqa: PLR0913, PLR0917  # Typer's options are the arguments
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.", min=0)] = 1,
    studies: Annotated[int, typer.Option(help="How many.", min=1, max=SEEDS_APART)] = 4,
    lesion: Annotated[str | None, typer.Option(help="A kind, or none; by default half have one.")] = None,
    slice_mm: Annotated[float | None, typer.Option(help="Slice thickness.", min=0.4, max=10)] = None,
    slices: Annotated[int | None, typer.Option(help="Slices a study.", min=1, max=2000)] = None,
    difficulty: Annotated[float | None, typer.Option(help="0 plain to 1 hard; by default both.", min=0, max=1)] = None,
    hard: Annotated[bool, typer.Option("--hard", help="Only faint, thin, small and isodense lesions.")] = False,  # noqa: FBT002  # a flag
    matrix: Annotated[int, typer.Option(help="Rows and columns.", min=FEWEST_PX, max=1024)] = 512,
    json_out: Annotated[bool, typer.Option("--json", help="Print what was made as JSON.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Write DICOM series, truth as SEG and JSON, a contact sheet a study, labels.csv. Goes on where it was cut off."""
    wish = _wish(lesion, slice_mm, slices, _difficulty(difficulty, hard=hard), matrix)
    made = list(_made(out, seed, studies, wish))
    _labels(out, made)
    if json_out:
        typer.echo(json.dumps({"notice": made[0]["notice"], "studies": made}, indent=1))
    else:
        sick = sum(one["any"] is True for one in made)
        typer.echo(f"{len(made)} synthetic studies, {sick} with a lesion: {out}")


def _difficulty(difficulty: float | None, *, hard: bool) -> tuple[float, float]:
    if hard and difficulty is not None:
        raise SettingsError("--hard and --difficulty exclude each other")
    if hard:
        return HARD
    return (0.0, 1.0) if difficulty is None else (difficulty, difficulty)


def _wish(
    lesion: str | None, slice_mm: float | None, slices: int | None, difficulty: tuple[float, float], matrix: int
) -> Wish:
    from training.phantom.lesions import HELD_OUT_KINDS, KINDS  # noqa: PLC0415  # PyTorch and the rest, only for work
    from training.phantom.series import Wish  # noqa: PLC0415  # as above

    known = ("none", *KINDS, *HELD_OUT_KINDS)
    if lesion is not None and lesion not in known:
        raise SettingsError(f"--lesion {lesion} is none of {', '.join(known)}")
    return Wish(lesion=lesion, difficulty=difficulty, slice_mm=slice_mm, slices=slices, matrix=matrix)


def _made(out: Path, seed: int, studies: int, wish: Wish) -> Iterator[dict[str, Any]]:
    from rich.progress import Progress  # noqa: PLC0415  # only for work

    from training.cli import cache_dir  # noqa: PLC0415  # as above
    from training.phantom.atlas_in import load_atlas  # noqa: PLC0415  # heavy: only for work
    from training.phantom.series import plan_series  # noqa: PLC0415  # heavy: only for work

    plans = [plan_series(seed * SEEDS_APART + nth, wish) for nth in range(studies)]
    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("slices", total=sum(len(plan.z_mm) for plan in plans))
        atlas = load_atlas(cache_dir())
        for plan in plans:
            before = bars.tasks[task].completed
            yield _one(out, plan, atlas, lambda done, before=before: bars.update(task, completed=before + done))
            bars.update(task, completed=before + len(plan.z_mm))


def _one(out: Path, plan: SeriesPlan, atlas: Any, tell: Any) -> dict[str, Any]:
    """The side file's content; a study that lies there already is not drawn again."""
    from training.phantom.dicom_out import SERIES, TRUTH, is_written, made_with, write_study  # noqa: PLC0415  # as above
    from training.phantom.series import draw_series  # noqa: PLC0415  # heavy: only for work

    name = f"phantom-{plan.seed:06d}"
    series, folder = out / SERIES / name, out / "truth" / name
    try:
        if is_written(folder, made_with(plan)):
            kept: dict[str, Any] = json.loads((folder / TRUTH).read_text("utf-8"))
            return kept
        for old in series.glob("*.dcm"):  # of another wish: two series in one folder would be mixed
            old.unlink()
        return write_study(draw_series(plan, atlas, tell), series, folder)
    except OSError as problem:
        raise TriageError(f"{problem.filename or out}: {problem.strerror or problem}") from problem


def _labels(out: Path, made: list[dict[str, Any]]) -> None:
    """As `triage evaluate --csv` and `triage data check` read it; a study that a lesion only grazes is left out."""
    with (out / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("study_instance_uid", "label"))
        rows.writerows((one["study_instance_uid"], int(one["any"])) for one in made if one["any"] is not None)
