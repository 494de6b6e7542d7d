"""Does a TensorRT plan answer as its graph does? Asked where both are: on the GPU that the plan was built on."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from contracts.declaration import FILE, read_declaration
from contracts.errors import ModelRefused
from training.serving.parity import TOLERANCE_FP16, Answers, Engine, compare
from training.serving.session_in import Feed, answers, session
from training.serving.verify_call import feeds_of

PLAN_SIDE = 256  # of free sizes: within every plan's profile (launch/models_plan.py)
RUN_LIMIT_S = 300.0  # trtexec loads the engine anew for each slice


def plan_checked(onnx: Path, plan: Path) -> str:
    """The largest difference, in a sentence.

    Raises:
        ModelRefused: the plan cannot be asked, or answers otherwise than its graph.
    """
    declared = read_declaration(onnx.with_name(FILE).read_text("utf-8"), str(onnx.with_name(FILE)))
    running = session(onnx)
    trtexec = shutil.which("trtexec")
    told = through_trtexec(trtexec, plan) if trtexec else _through_package(plan)
    feeds = feeds_of(declared, PLAN_SIDE)
    parity = compare(("ONNX Runtime", lambda feed: answers(running, feed)), ("TensorRT", told), feeds)
    if not parity.within(TOLERANCE_FP16):
        raise ModelRefused(f"The plan does not answer as its graph: {parity}; {TOLERANCE_FP16:g} is allowed.")
    return str(parity)


def through_trtexec(trtexec: str, plan: Path) -> Engine:
    """Each slice in a run of its own: files in, JSON out."""

    def asked(feed: Feed) -> Answers:
        with tempfile.TemporaryDirectory() as folder:
            files = {name: Path(folder) / f"{nth}.raw" for nth, name in enumerate(feed)}
            for name, file in files.items():
                file.write_bytes(np.ascontiguousarray(feed[name]).tobytes())
            target = Path(folder) / "out.json"
            command = asking_command(trtexec, plan, feed, files, target)
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=RUN_LIMIT_S)
            if done.returncode or not target.is_file():
                raise ModelRefused(f"trtexec could not run the plan:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
            return _read(target)

    return asked


def asking_command(trtexec: str, plan: Path, feed: Feed, files: dict[str, Path], target: Path) -> list[str]:
    """The command line that runs a plan once on these files."""
    shapes = ",".join(f"{name}:{'x'.join(map(str, value.shape))}" for name, value in feed.items())
    inputs = ",".join(f"{name}:{file}" for name, file in files.items())
    once = ["--iterations=1", "--duration=0", "--warmUp=0"]
    return [
        trtexec,
        f"--loadEngine={plan}",
        f"--shapes={shapes}",
        f"--loadInputs={inputs}",
        f"--exportOutput={target}",
        *once,
    ]


def _read(file: Path) -> Answers:
    """The list that trtexec writes: {name, dimensions "1x6", values}."""
    try:
        return {
            one["name"]: np.array(one["values"], np.float32).reshape(
                [int(size) for size in one["dimensions"].split("x")]
            )
            for one in json.loads(file.read_text("utf-8"))
        }
    except (ValueError, KeyError, TypeError) as problem:  # it writes NaN as C++ does, which is no JSON
        raise ModelRefused(f"trtexec's answers are not understood: {problem}") from problem


def _through_package(plan: Path) -> Engine:
    """In this process, on PyTorch's GPU memory."""
    import tensorrt  # type: ignore[import-not-found]  # noqa: PLC0415  # only where a GPU is; not a dependency of ours
    import torch  # noqa: PLC0415  # not asked for where trtexec is

    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan.read_bytes())
    if engine is None:
        raise ModelRefused("TensorRT could not read its own plan; its messages are above.")
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(nth) for nth in range(engine.num_io_tensors)]

    def asked(feed: Feed) -> Answers:
        held = {name: torch.from_numpy(np.ascontiguousarray(value)).cuda() for name, value in feed.items()}
        for name, value in held.items():
            context.set_input_shape(name, tuple(value.shape))
        outputs = [name for name in names if name not in held]
        for name in outputs:
            kind = torch.from_numpy(np.empty(0, tensorrt.nptype(engine.get_tensor_dtype(name)))).dtype
            held[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device="cuda")
        for name, value in held.items():
            context.set_tensor_address(name, value.data_ptr())
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # untyped in torch
        torch.cuda.synchronize()
        if not context.execute_async_v3(stream.cuda_stream):
            raise ModelRefused("TensorRT could not run the plan; its messages are above.")
        stream.synchronize()
        return {name: held[name].cpu().numpy() for name in outputs}

    return asked
