"""The TensorRT plan for the GPU of this machine: built from a version's ONNX graph where it will run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contracts.declaration import Declaration
from contracts.errors import ModelRefused
from launch.models_repository import read_version

# Shapes the plan is optimised for: smallest, usual, largest (batch, rows, columns).
PROFILE = {"min": (1, 256, 256), "opt": (8, 512, 512), "max": (16, 1024, 1024)}
BUILD_LIMIT_S = 1800  # TensorRT times many kernels; minutes on a busy GPU


def build_plan(onnx: Path, judge: Callable[[Path], str] = lambda _plan: "") -> str:
    """model.plan beside model.onnx, in place only when it is whole and ``judge``, whose words are returned, takes it.

    Raises:
        ModelRefused: no graph, no declaration, no GPU, no builder, the builder's own words, or the judge's.
    """
    if not onnx.exists():
        raise ModelRefused(f"There is no ONNX graph at {onnx}.")
    if not has_gpu():
        raise ModelRefused(
            "No NVIDIA GPU answers on this machine: a TensorRT plan must be built on the GPU that will run it."
        )
    declared, target, trtexec = read_version(onnx.parent), onnx.with_suffix(".plan.partial"), shutil.which("trtexec")
    try:
        if trtexec is not None:
            _build_with_trtexec(trtexec, onnx, target, declared)
        else:
            _build_with_package(onnx, target, declared)
        told = judge(target)
        target.replace(onnx.with_suffix(".plan"))
    finally:
        target.unlink(missing_ok=True)
    return told


def has_gpu() -> bool:
    """Whether the driver lists a GPU."""
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)  # the driver's own tool
    return listed.returncode == 0 and "GPU" in listed.stdout


def shapes_of(declared: Declaration) -> dict[str, dict[str, tuple[int, ...]]]:
    """Profile name → input → shape. Inputs of ours take PROFILE; a foreign input's free sizes take its rows' values."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    for kind, (batch, rows, columns) in PROFILE.items():
        ours = {"HU": (batch, rows, columns), "PIXEL_SPACING": (batch, 2)}
        first = (batch,) if declared.batched else ()
        shapes[kind] = {
            t.spec.name: ours.get(t.spec.name, (*first, *(rows if size == -1 else size for size in t.spec.dims)))
            for t in declared.inputs
        }
    return shapes


def trtexec_command(trtexec: str, onnx: Path, target: Path, declared: Declaration) -> list[str]:
    """The command line that builds the plan."""
    told = {
        kind: ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes.items())
        for kind, shapes in shapes_of(declared).items()
    }
    options = [f"--{kind}Shapes={shapes}" for kind, shapes in told.items()]
    return [trtexec, f"--onnx={onnx}", f"--saveEngine={target}", *options, "--skipInference"]


def _build_with_trtexec(trtexec: str, onnx: Path, target: Path, declared: Declaration) -> None:
    command = trtexec_command(trtexec, onnx, target, declared)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=BUILD_LIMIT_S)
    if done.returncode:
        raise ModelRefused(f"trtexec could not build the plan:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _build_with_package(onnx: Path, target: Path, declared: Declaration) -> None:
    try:
        import tensorrt  # type: ignore[import-not-found]  # noqa: PLC0415  # only where a GPU is; not a dependency of ours
    except ImportError as problem:
        raise ModelRefused(
            "A GPU is here, but neither trtexec nor the tensorrt package: install one of them (TensorRT 10)."
        ) from problem
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx)):
        words = "; ".join(str(parser.get_error(n)) for n in range(parser.num_errors))
        raise ModelRefused(f"TensorRT does not take the graph: {words}")
    built = builder.build_serialized_network(network, _configured(builder, shapes_of(declared)))
    if built is None:
        raise ModelRefused("TensorRT could not build the plan; its messages are above.")
    target.write_bytes(bytes(built))


def _configured(builder: Any, shapes: dict[str, dict[str, tuple[int, ...]]]) -> Any:
    profile, config = builder.create_optimization_profile(), builder.create_builder_config()
    for name in shapes["min"]:
        profile.set_shape(name, shapes["min"][name], shapes["opt"][name], shapes["max"][name])
    config.add_optimization_profile(profile)
    return config
