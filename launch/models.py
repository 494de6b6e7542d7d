"""`triage models`: what is served, whether it is sound, what comes in, which version is asked, how small it gets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from contracts.errors import ModelRefused
from launch.models_plan import build_plan
from launch.models_repository import Version, forget_last, previous, promote, versions

if TYPE_CHECKING:
    from training.serving.verify_call import Check

app = typer.Typer(
    help="The served models: list, verify, import, promote, compress; build TensorRT plans.",
    no_args_is_help=True,
    add_completion=False,
)

RepositoryOption = Annotated[
    Path, typer.Option("--repository", envvar="TRIAGE_MODEL_REPOSITORY", help="The Triton model repository.")
]
NameArgument = Annotated[str, typer.Argument(help="Model folder in the repository.")]
TritonOption = Annotated[str, typer.Option("--triton", help="host:port of a running Triton (gRPC).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object instead of lines.")]
DEFAULT_REPOSITORY = Path(__file__).parent.parent / "triton_models"
_RELOAD_S = 120.0  # a server loads a graph on a busy machine


@app.command(name="list")
def list_models(repository: RepositoryOption = DEFAULT_REPOSITORY, as_json: JsonOption = False) -> None:  # noqa: FBT002  # a flag
    """Every version: its files, which engine serves it, whether scoring asks it."""
    try:
        found = list(versions(repository))
    except ModelRefused as problem:
        _refuse(str(problem))
    if as_json:
        typer.echo(json.dumps([_entry(one) for one in found], indent=1))
        return
    for one in found:
        typer.echo(f"{one.model} {one.number}: {', '.join(one.files) or 'nothing to serve'}{_remarks(one)}")


def _entry(one: Version) -> dict[str, object]:
    return {
        "model": one.model,
        "version": one.number,
        "files": one.files,
        "served_by": one.served_by,
        "asked_by_scoring": one.asked_by_scoring,
        "facts": dict(one.declared.facts) if one.declared else {},
    }


def _remarks(one: Version) -> str:
    served = f"served ({', '.join(one.served_by)})" if one.served_by else "not served"
    asked = "" if one.asked_by_scoring else "; scoring does not ask it"
    undeclared = "" if one.declared else "; declares nothing (no model.toml)"
    return f" · {served}{asked}{undeclared}"


@app.command()
def verify(
    name: NameArgument = "head_ct_lesion",
    version: Annotated[int, typer.Option(help="Version folder; 0: the served one.")] = 0,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    triton: TritonOption = "",
    as_json: JsonOption = False,  # noqa: FBT002  # a flag
) -> None:
    """Check graph, declaration, contract, operators and configurations; run slices, with --triton through a server."""
    from training.serving.verify_call import verified  # noqa: PLC0415  # ONNX and its runtime, only in a checkout

    try:
        checks = verified(repository / name, version or None, triton)
    except ModelRefused as problem:
        _refuse(str(problem))
    typer.echo(json.dumps([vars(one) for one in checks], indent=1) if as_json else "\n".join(map(_line, checks)))
    if not all(one.passed for one in checks):
        raise typer.Exit(1)


def _line(check: Check) -> str:
    return f"{'ok  ' if check.passed else 'FAIL'} {check.what}{f': {check.told}' if check.told else ''}"


@app.command(name="import")
def import_one(
    source: Annotated[Path, typer.Argument(help="ONNX or TorchScript file, MONAI bundle folder, state dict.")],
    kind: Annotated[str, typer.Option("--as", help="onnx, torchscript, monai-bundle, blast-ct; else by content.")] = "",
    declaration: Annotated[
        Path | None, typer.Option(help="The model's TOML: name, tensors, spacing, window, labels.", dir_okay=False)
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Version folder to write.")] = 1,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
) -> None:
    """Bring in somebody else's model. Pickles are refused; TorchScript is converted in a child with limits."""
    from training.serving.import_out import Kind, import_model  # noqa: PLC0415  # as above

    try:
        known = Kind(kind) if kind else None
        declared = import_model(source, known, declaration, repository, version)
    except ValueError as problem:
        raise typer.BadParameter(f"{kind} is none of {', '.join(Kind)}", param_hint="--as") from problem
    except ModelRefused as problem:
        _refuse(str(problem))
    typer.echo(
        f"Imported {declared.name} {version} into {repository}. Look at it: triage models verify {declared.name}"
    )


@app.command()
def plan(
    name: NameArgument = "head_ct_lesion",
    version: Annotated[str, typer.Option(help="Version folder.")] = "1",
    repository: RepositoryOption = DEFAULT_REPOSITORY,
) -> None:
    """Build model.plan from model.onnx on this machine's GPU, and compare its answers with the graph's.

    A plan that answers otherwise is thrown away.
    """
    graph = repository / name / version / "model.onnx"
    try:
        told = build_plan(graph, lambda built: _compared(graph, built))
    except ModelRefused as problem:
        _refuse(str(problem))
    typer.echo(f"Built {graph.with_suffix('.plan')}. {told}.")


def _compared(graph: Path, built: Path) -> str:
    try:
        from training.serving.plan_call import plan_checked  # noqa: PLC0415  # as above
    except ModuleNotFoundError:
        return "It was not compared with its graph: that needs a checkout (triage models verify --triton, from one)"
    return plan_checked(graph, built)


@app.command(name="promote")
def promote_one(
    name: NameArgument,
    version: Annotated[int | None, typer.Argument(help="The version to serve; none with --back.")] = None,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    triton: TritonOption = "",
    back: Annotated[bool, typer.Option("--back", help="Serve again what was served before.")] = False,  # noqa: FBT002  # a flag
) -> None:
    """Serve another version, with its own labels and operating points; --back goes back.

    A running Triton in explicit control mode takes it with --triton; if it does not, the old version stays.
    """
    from launch.models_call import taken_by  # noqa: PLC0415  # tritonclient

    model = repository / name
    if back == (version is not None):
        raise typer.BadParameter("say either a version or --back")
    try:
        number = previous(model) if version is None else version
        before = promote(model, number, lambda: taken_by(triton, name, number, _RELOAD_S) if triton else True)
    except ModelRefused as problem:
        if triton:
            taken_by(triton, name, None, _RELOAD_S)
        _refuse(str(problem))
    if back:
        forget_last(model)
    plan_missing = "" if (model / str(number) / "model.plan").exists() else " A GPU server needs `triage models plan`."
    typer.echo(f"{name}: version {number} is served, before it {before or 'none'}.{plan_missing}")
    if not triton:
        typer.echo("A running server serves it from its next start, or with --triton where it is in explicit mode.")


@app.command()
def compress(
    name: NameArgument = "head_ct_lesion",
    version: Annotated[int, typer.Option(help="Version folder to start from; 0: the served one.")] = 0,
    heads: Annotated[int, typer.Option(min=4, help="Phantom heads each for calibration and judgement.")] = 20,
    target: Annotated[int, typer.Option(help="Write the chosen candidate as this version; 0: only report.")] = 0,
    tune_steps: Annotated[
        int, typer.Option(min=0, help="Of a pruned candidate, towards the original's answers; 120 take half a minute.")
    ] = 120,
    repository: RepositoryOption = DEFAULT_REPOSITORY,
    reports: Annotated[Path, typer.Option(help="Where table and figures go.")] = Path("training/reports"),
) -> None:
    """Prune and tune, quantise (INT8) and halve (FP16) a version, measure speed and accuracy, choose by rule."""
    from training.serving.compress_out import compressed  # noqa: PLC0415  # as above

    try:
        typer.echo(compressed(repository / name, version or None, heads, target or None, reports, tune_steps))
    except ModelRefused as problem:
        _refuse(str(problem))


def _refuse(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
