"""`triage models`: what is served, and the TensorRT plan for the GPU of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    help="The served models: list them, build TensorRT plans.", no_args_is_help=True, add_completion=False
)

RepositoryOption = Annotated[
    Path, typer.Option("--repository", envvar="TRIAGE_MODEL_REPOSITORY", help="The Triton model repository.")
]
DEFAULT_REPOSITORY = Path(__file__).parent.parent / "triton_models"
# Shapes the plan is optimised for: smallest, usual, largest (batch, rows, columns).
PROFILE = {"min": (1, 256, 256), "opt": (8, 512, 512), "max": (16, 1024, 1024)}
BUILD_LIMIT_S = 1800  # TensorRT times many kernels; minutes on a busy GPU


@app.command(name="list")
def list_models(repository: RepositoryOption = DEFAULT_REPOSITORY) -> None:
    """Every model of the repository: versions, ONNX graph, plan."""
    for model in sorted(path.parent for path in repository.glob("*/config.pbtxt")):
        for version in sorted(path for path in model.iterdir() if path.name.isdigit()):
            present = [name for name in ("model.onnx", "model.plan") if (version / name).exists()]
            typer.echo(f"{model.name} {version.name}: {', '.join(present) or 'nothing to serve'}")


@app.command()
def plan(
    name: Annotated[str, typer.Argument(help="Model folder in the repository.")] = "head_ct_lesion",
    version: Annotated[str, typer.Option(help="Version folder.")] = "1",
    repository: RepositoryOption = DEFAULT_REPOSITORY,
) -> None:
    """Build model.plan from model.onnx on this machine's GPU."""
    onnx = repository / name / version / "model.onnx"
    if not onnx.exists():
        _refuse(f"There is no ONNX graph at {onnx}.")
    if not has_gpu():
        _refuse("No NVIDIA GPU answers on this machine: a TensorRT plan must be built on the GPU that will run it.")
    trtexec = shutil.which("trtexec")
    if trtexec is not None:
        _build_with_trtexec(trtexec, onnx)
    else:
        _build_with_package(onnx)
    typer.echo(f"Built {onnx.with_suffix('.plan')}.")


def has_gpu() -> bool:
    """Whether the driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)  # the driver's own tool
    return listed.returncode == 0 and "GPU" in listed.stdout


def trtexec_command(trtexec: str, onnx: Path, target: Path) -> list[str]:
    """The command line that builds the plan."""
    shapes = [
        f"--{kind}Shapes=HU:{batch}x{rows}x{columns},PIXEL_SPACING:{batch}x2"
        for kind, (batch, rows, columns) in PROFILE.items()
    ]
    return [trtexec, f"--onnx={onnx}", f"--saveEngine={target}", *shapes, "--skipInference"]


def _build_with_trtexec(trtexec: str, onnx: Path) -> None:
    target = onnx.with_suffix(".plan.partial")
    done = subprocess.run(
        trtexec_command(trtexec, onnx, target), capture_output=True, text=True, check=False, timeout=BUILD_LIMIT_S
    )
    if done.returncode:
        _refuse(f"trtexec could not build the plan:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    target.replace(onnx.with_suffix(".plan"))


def _build_with_package(onnx: Path) -> None:
    try:
        import tensorrt  # type: ignore[import-not-found]  # noqa: PLC0415  # only where a GPU is; not a dependency of ours
    except ImportError:
        _refuse("A GPU is here, but neither trtexec nor the tensorrt package: install one of them (TensorRT 10).")
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        _refuse(
            "TensorRT does not take the graph: " + "; ".join(str(parser.get_error(n)) for n in range(parser.num_errors))
        )
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    profile.set_shape("HU", *PROFILE.values())
    profile.set_shape("PIXEL_SPACING", *((batch, 2) for batch, _, _ in PROFILE.values()))
    config.add_optimization_profile(profile)
    built = builder.build_serialized_network(network, config)
    if built is None:
        _refuse("TensorRT could not build the plan; its messages are above.")
    target = onnx.with_suffix(".plan.partial")
    target.write_bytes(bytes(built))
    target.replace(onnx.with_suffix(".plan"))


def _refuse(sentence: str) -> NoReturn:
    typer.echo(sentence, err=True)
    raise typer.Exit(1)
