"""`triage evaluate`: what a model is worth, as figures, a report and a card. Help needs none of its packages."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from contracts.errors import TriageError

if TYPE_CHECKING:
    from torch import nn

    from training.evaluation.network_in import Network
    from training.evaluation.reading import Reader
    from training.evaluation.tiers import Outcome, Plan, Source, Tell

app = typer.Typer(help="Tell what a model is worth.", invoke_without_command=True, add_completion=False)
SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
VALIDATION_SEED = (1 << 20) - 1  # of operating points: kept for them, never evaluated on
SHIFTED, SLOW = 8, 6  # studies that are asked under every shift, and of a baseline that takes minutes a study


class Tier(StrEnum):
    """Never averaged."""

    S = "S"
    R = "R"
    L = "L"


class Unusable(TriageError):
    """What was asked cannot be done; the sentence says why."""


ModelOption = Annotated[Path, typer.Option(help="An exported model.", exists=True, dir_okay=False)]
Studies = Annotated[int, typer.Option(help="Tier S: how many fresh phantom studies.", min=1)]
Dicom = Annotated[
    Path | None, typer.Option(help="A folder of DICOM: with --csv tier L, else R.", exists=True, file_okay=False)
]
Csv = Annotated[Path | None, typer.Option(help="Labels: study_instance_uid,label.", exists=True, dir_okay=False)]
Real = Annotated[
    list[Path] | None,
    typer.Option(envvar="TRIAGE_REAL_DICOM", help="Tier R in the report: a folder of DICOM; repeatable.", exists=True),
]
Blast = Annotated[
    Path | None,
    typer.Option(
        envvar="TRIAGE_BLAST_CT", help="Weights of BLAST-CT: baseline, and judge of the phantoms.", exists=True
    ),
]
BlastBaseline = Annotated[
    bool,
    typer.Option("--blast-baseline/--no-blast-baseline", help="BLAST-CT reads every study as well: a minute each."),
]


Mask = Annotated[
    bool,
    typer.Option("--brain-mask/--no-brain-mask", help="Refuse and measure with the brain mask, as the service does."),
]


@app.callback()
def evaluate(  # noqa: PLR0913, PLR0917  # Typer's options
    context: typer.Context,
    tier: Annotated[Tier | None, typer.Option(help="What is printed; found from the other options.")] = None,
    seed: Annotated[int, typer.Option(help="Tier S: of the fresh studies.", min=0, max=VALIDATION_SEED - 1)] = 0,
    studies: Studies = 20,
    dicom: Dicom = None,
    csv: Csv = None,
    model: ModelOption = SHIPPED,
    real: Real = None,
    blast_ct: Blast = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON, nothing else.")] = False,  # noqa: FBT002  # a flag
    report: Annotated[Path | None, typer.Option(help="Folder for report (HTML), figures (JSON) and card.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Cache for drawn studies, outside the clone.")] = None,
    brain_mask: Mask = True,  # noqa: FBT002  # a flag
    pictures: Annotated[bool, typer.Option("--pictures/--no-pictures", help="Slices in the report.")] = True,  # noqa: FBT002  # a flag
    blast_baseline: BlastBaseline = True,  # noqa: FBT002  # a flag
) -> None:
    """Evaluate a model on fresh phantoms (tier S) or on a folder of DICOM (tiers R and L)."""
    if context.invoked_subcommand is not None:
        return
    letter = _letter(tier, dicom, csv)
    places = tuple(real or ())
    asked = Asked(
        seed, studies, dicom, csv, model, places, blast_ct, report, cache, brain_mask, pictures, blast_baseline
    )
    run = Evaluation(asked, Console(stderr=True))
    told = run.told(letter)
    if report is not None:
        run.write(report)
    _print(told, run.notice, as_json=as_json)


@app.command(name="operating-point")
def operating_point(
    studies: Studies = 40,
    model: ModelOption = SHIPPED,
    budget: Annotated[float, typer.Option(help="Share of clean studies and images that may be raised.")] = 0.05,
    write: Annotated[bool, typer.Option("--write", help="Write it where the worker reads it.")] = False,  # noqa: FBT002  # a flag
    cache: Annotated[Path | None, typer.Option(help="Cache for drawn studies, outside the clone.")] = None,
    brain_mask: Mask = True,  # noqa: FBT002  # a flag
) -> None:
    """Choose the operating point of *any* for a false-alarm budget, on validation phantoms of a seed of their own."""
    from training.evaluation import figures  # noqa: PLC0415  # scikit-learn and the rest, only for work
    from training.evaluation.operating_out import write_threshold  # noqa: PLC0415  # heavy: only for work

    asked = Asked(VALIDATION_SEED, studies, None, None, model, (), None, None, cache, brain_mask)
    run = Evaluation(asked, Console(stderr=True))
    cases = run.tier_s().judged[run.network.name]
    point = figures.operating_point(cases, budget)
    there = figures.rounded(figures.headline(cases, point))
    print(json.dumps({"threshold.any": point, "was": run.network.thresholds["any"], "there": _null(there)}))  # noqa: T201  # a command line prints
    if write:
        for file in write_threshold(model, "any", point):
            run.console.print(f"wrote {file}")


def _letter(tier: Tier | None, dicom: Path | None, csv: Path | None) -> Tier:
    found = Tier.S if dicom is None else Tier.R if csv is None else Tier.L
    if csv is not None and dicom is None:
        raise typer.BadParameter("labels need the images they are of: --dicom DIR", param_hint="--csv")
    if tier is not None and tier not in {found, Tier.S}:
        wanted = {Tier.R: "--dicom DIR without --csv", Tier.L: "--dicom DIR and --csv LABELS"}[tier]
        raise typer.BadParameter(f"tier {tier} needs {wanted}", param_hint="--tier")
    return tier or found


def _print(told: dict[str, Any], notice: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_null(told)))  # noqa: T201  # a command line prints
        return
    for key, value in told.items():
        print(f"{key:<22}{value if not isinstance(value, float) else f'{value:8.3f}'}")  # noqa: T201  # the answer
    print(notice)  # noqa: T201  # the answer


def _null(value: Any) -> Any:
    from training.evaluation.training_report import without_nan  # noqa: PLC0415  # heavy: only for work

    return without_nan(value)


@dataclass(frozen=True)
class Asked:
    """The command line."""

    seed: int
    studies: int
    dicom: Path | None
    csv: Path | None
    model: Path
    real: tuple[Path, ...]
    blast_ct: Path | None
    report: Path | None
    cache: Path | None
    brain_mask: bool = True
    pictures: bool = True
    blast_baseline: bool = True


class Evaluation:
    """One model on the tiers that were asked for."""

    def __init__(self, asked: Asked, console: Console) -> None:
        from training.evaluation.account import notice  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.brain_in import BrainMask  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.network_in import Network  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.threshold import HuThreshold  # noqa: PLC0415  # heavy: only for work

        self.asked = asked
        self.console = console
        self.network: Network = Network(asked.model, mask=BrainMask() if asked.brain_mask else None)
        self.notice = notice(self.network.trained_on)
        self.baseline = HuThreshold()
        self.outcomes: dict[str, Outcome] = {}

    def told(self, letter: Tier) -> dict[str, Any]:
        """The figures that are printed; with a report, the other tiers are evaluated as well."""
        from training.evaluation import account  # noqa: PLC0415  # heavy: only for work

        if letter is Tier.S or self.asked.report is not None:
            self.outcomes["S"] = self.tier_s()
        if self.asked.dicom is not None and self.asked.csv is not None:
            self.outcomes["L"] = self._folder(self.asked.dicom, self.asked.csv)
        if letter is Tier.R and self.asked.dicom is not None:
            outcome = self._folder(self.asked.dicom, None)
            return account.unlabelled(outcome, self.network.name, self.network.thresholds["any"])
        names = (self.network.name, self.baseline.name)
        return account.headline_json(self.outcomes[letter], *names, self.network.thresholds["any"])

    def tier_s(self) -> Outcome:
        """Fresh phantoms of the seed."""
        from training.cli import cache_dir  # noqa: PLC0415  # heavy: only for work
        from training.data.cache_out import Cached  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.fresh import FreshPhantoms  # noqa: PLC0415  # heavy: only for work
        from training.phantom.atlas_in import load_atlas  # noqa: PLC0415  # heavy: only for work

        cache = self.asked.cache or cache_dir()
        source = FreshPhantoms(self.asked.seed, self.asked.studies, load_atlas(cache))
        plan = self._plan(lambda entry: source.drawn[entry.uid].tags)
        return self._run(Cached(source, cache), plan, "fresh phantoms")

    def _folder(self, folder: Path, labels: Path | None) -> Outcome:
        from training.data.folder_in import FolderSource  # noqa: PLC0415  # heavy: only for work
        from training.data.naming import named  # noqa: PLC0415  # heavy: only for work

        source = FolderSource(folder, labels)
        for doubt in source.doubts():
            sentence = named(f"{doubt.file}: {doubt.sentence}", folder, labels)
            self.console.print(sentence, style="yellow", highlight=False, soft_wrap=True)
        name = f"studies in {folder.name}"
        return self._run(source, self._plan(lambda _entry: {}), name, lambda text: named(text, folder, labels))

    def _plan(self, tags: Any) -> Plan:
        from training.evaluation.robustness import shifts  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.tiers import Plan  # noqa: PLC0415  # heavy: only for work

        full = self.asked.report is not None
        return Plan(
            readers=(self.network, self.baseline),
            few=self._slow(),
            few_studies=SLOW,
            shifts=shifts(self.gradients()) if full else (),
            shifted_studies=SHIFTED if full else 0,
            tags=tags,
            pictures=full and self.asked.pictures,
        )

    def _slow(self) -> tuple[Reader, ...]:
        if self.asked.blast_ct is None or not self.asked.blast_baseline:
            return ()
        from training.evaluation.blast_in import BlastCt  # noqa: PLC0415  # heavy: only for work

        return (BlastCt(self.asked.blast_ct),)

    def gradients(self) -> nn.Module | None:
        """The graph in PyTorch, or None where it cannot be followed."""
        from training.explaining.onnx_graph import NotExplainable  # noqa: PLC0415  # heavy: only for work
        from training.explaining.subject import subject_of_onnx  # noqa: PLC0415  # heavy: only for work

        try:
            return subject_of_onnx(self.asked.model).network
        except NotExplainable as problem:
            self.console.print(
                f"{problem}: the adversary's signs are random", style="yellow", highlight=False, soft_wrap=True
            )
            return None

    def _run(self, source: Source, plan: Plan, name: str, written: Callable[[str], str] = lambda text: text) -> Outcome:
        from training.evaluation.tiers import evaluate as every  # noqa: PLC0415  # heavy: only for work

        columns = (TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console) as bars:
            task = bars.add_task(name, total=None)
            tell: Tell = lambda done, of: bars.update(task, completed=done, total=of)  # noqa: E731  # a line, not a function
            outcome = every(source, plan, tell)
        outcome.refused = [
            replace(one, place=written(one.place), reason=written(one.reason)) for one in outcome.refused
        ]
        for one in outcome.refused:
            self.console.print(
                f"not scored: {one.place}: {one.reason}", style="yellow", highlight=False, soft_wrap=True
            )
        if not outcome.judged.get(self.network.name):
            raise Unusable(f"{name}: not one study could be scored")
        return outcome

    def write(self, folder: Path) -> None:
        """`<model>.evaluation.json`, `.html`, and the card beside them."""
        from training.evaluation import account  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.card import card  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.page import page  # noqa: PLC0415  # heavy: only for work

        name, point = self.network.name, self.network.thresholds["any"]
        real = {place.name: self._folder(place, None) for place in self.asked.real}
        told = {
            "notice": self.notice,
            "run": self._facts(),
            "thresholds": dict(self.network.thresholds),
            "adversary": "random signs" if self.gradients() is None else "FGSM",
            **dict.fromkeys(("S", "L")),
            **{letter: account.section(outcome, name, point) for letter, outcome in self.outcomes.items()},
            "R": {place: account.unlabelled(outcome, name, point) for place, outcome in real.items()},
            "realism": self._realism(),
        }
        told = _null(told)
        folder.mkdir(parents=True, exist_ok=True)
        stem = folder / f"{told['run']['model']}.evaluation"
        _put(stem.with_suffix(".evaluation.json"), json.dumps(told, indent=1, ensure_ascii=False) + "\n", self.console)
        _put(stem.with_suffix(".evaluation.html"), page(told, self.outcomes, name), self.console)
        _put(stem.with_suffix(".card.md"), card(told), self.console)

    def _realism(self) -> dict[str, Any] | None:
        """What BLAST-CT says of the phantoms themselves; None where it is not given."""
        if self.asked.blast_ct is None:
            return None
        from training.cli import cache_dir  # noqa: PLC0415  # heavy: only for work
        from training.evaluation.blast_in import BlastCt  # noqa: PLC0415  # heavy: only for work
        from training.phantom.atlas_in import load_atlas  # noqa: PLC0415  # heavy: only for work
        from training.phantom.realism import judged, showpieces, summary  # noqa: PLC0415  # heavy: only for work

        atlas = load_atlas(self.asked.cache or cache_dir())
        return summary(judged(showpieces(self.asked.seed), atlas, BlastCt(self.asked.blast_ct)))

    def _facts(self) -> dict[str, Any]:
        from training.evaluation.network_in import runtime_version  # noqa: PLC0415  # heavy: only for work

        asked, file = self.asked, self.asked.model.resolve()
        given = [f"--seed {asked.seed} --studies {asked.studies}"]
        given += [f"--real {place.name}" for place in asked.real]
        given += ["--blast-ct FILE"] if asked.blast_ct else []
        given += ["--no-blast-baseline"] if asked.blast_ct and not asked.blast_baseline else []
        given += [f"--dicom {asked.dicom.name} --csv {asked.csv.name}"] if asked.dicom and asked.csv else []
        given += [] if asked.brain_mask else ["--no-brain-mask"]
        given += [] if asked.pictures else ["--no-pictures"]
        return {
            "model": file.parents[1].name if file.parent.name.isdecimal() else file.stem,
            "file": "/".join(file.parts[-3:]),
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "command": " ".join(["triage evaluate", *given, "--report DIR"]),
            "commit": _commit(),
            "brain_mask": asked.brain_mask,
            "trained_on": self.network.trained_on,
            "runtime": runtime_version(),
        }


def _put(file: Path, text: str, console: Console) -> None:
    file.write_text(text, "utf-8")
    console.print(f"wrote {file}", highlight=False, soft_wrap=True)


def _commit() -> str:
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
