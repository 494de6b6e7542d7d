"""`triage data`: look at a data set before anything is trained on it. Help needs none of training's packages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from training.data.checks import Report
    from training.data.study import Fault

app = typer.Typer(help="Look at data before training.", no_args_is_help=True, add_completion=False)
LAYOUT_NAMES = ("rsna", "cq500", "physionet", "folder")
REPORT_NAME = "data_check"
SPLIT_SEED = 0  # of real data: the same patients are held out whatever seed a fit has


@app.callback()
def data() -> None:
    """Look at data before training."""


@app.command()
def check(  # Typer's options are the arguments
    path: Annotated[Path, typer.Argument(help="The data set's folder.")],
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(LAYOUT_NAMES)}.")] = "folder",
    csv: Annotated[Path | None, typer.Option(help="Table of labels; a folder's is study_instance_uid,label.")] = None,
    seed: Annotated[int, typer.Option(help="Of the split; training's is the default.")] = SPLIT_SEED,
    allow: Annotated[list[str] | None, typer.Option(help="A fault to let pass as a warning; may stand often.")] = None,
    report: Annotated[Path | None, typer.Option(help=f"Folder for {REPORT_NAME}.md and {REPORT_NAME}.json.")] = None,
    json_out: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Read every study once: spacing, orientation, HU, labels, duplicates, leaks. Exit code 1 if it must be mended."""
    _known(layout)
    found = _checked(path, layout, csv, seed, _faults(allow or []))
    if report is not None:
        _write(found, report)
    if json_out:
        typer.echo(json.dumps(found.as_json(), indent=1, ensure_ascii=False))
    else:
        from training.data.report import terminal  # noqa: PLC0415  # as below

        Console().print(terminal(found))
    raise typer.Exit(0 if found.passed else 1)


@app.command()
def find(
    told: Annotated[str, typer.Argument(metavar="NAME", help="uid-… or a place, as a report names it.")],
    path: Annotated[Path, typer.Argument(help="The data set's folder.")],
    layout: Annotated[str, typer.Option(help=f"One of {', '.join(LAYOUT_NAMES)}.")] = "folder",
    csv: Annotated[Path | None, typer.Option(help="Table of labels.")] = None,
) -> None:
    """Print UID and place of the studies that a report names so. Exit code 1: there is none."""
    from training.data.naming import hashed, named  # noqa: PLC0415  # heavy: only for work
    from training.data.sources import open_source  # noqa: PLC0415  # heavy: only for work

    _known(layout)
    entries = open_source(layout, path, csv).entries()
    found = [one for one in entries if told == hashed(one.uid) or told in named(one.place, path)]
    for one in found:
        typer.echo(f"{one.uid}\t{one.place}")
    raise typer.Exit(0 if found else 1)


def _known(layout: str) -> None:
    if layout not in LAYOUT_NAMES:
        raise typer.BadParameter(f"{layout!r} is none of {', '.join(LAYOUT_NAMES)}", param_hint="--layout")


def _checked(path: Path, layout: str, csv: Path | None, seed: int, allowed: frozenset[Fault]) -> Report:
    from rich.progress import Progress  # noqa: PLC0415  # only for work

    from training.data.checks import check as checked  # noqa: PLC0415  # nibabel, pydicom and scikit-learn, only for work
    from training.data.naming import named  # noqa: PLC0415  # heavy: only for work
    from training.data.sources import open_source  # noqa: PLC0415  # heavy: only for work
    from training.data.splits import parts_of  # noqa: PLC0415  # heavy: only for work

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("studies", total=None)
        found = checked(
            open_source(layout, path, csv),
            lambda entries: parts_of(entries, seed),
            name=f"{layout} {path}",
            allowed=allowed,
            tell=lambda done, of: bars.update(task, completed=done, total=of),
        )
    return found.named(lambda text: named(text, path, csv))


def _faults(names: list[str]) -> frozenset[Fault]:
    from training.data.study import Fault  # noqa: PLC0415  # numpy, only for work

    unknown = [name for name in names if name not in set(Fault)]
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(Fault)}", param_hint="--allow")
    return frozenset(map(Fault, names))


def _write(found: Report, folder: Path) -> None:
    from training.data.report import markdown  # noqa: PLC0415  # as above

    folder.mkdir(parents=True, exist_ok=True)
    told = json.dumps(found.as_json(), indent=1, ensure_ascii=False)
    (folder / f"{REPORT_NAME}.json").write_text(told + "\n", "utf-8")
    (folder / f"{REPORT_NAME}.md").write_text(markdown(found), "utf-8")
