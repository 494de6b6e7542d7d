"""Weights to start from or to learn from: checkpoints of ours, of Lightning, and exported graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from training.fit.data import Unfit

Weights = dict[str, Tensor]
SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"
PREFIX = "trunk."  # of the network inside what is served
NORM_EPS = 1e-5


def read_weights(told: str, option: str) -> Weights:
    """The weights in a file, or in the model that is shipped; `option` is named where they cannot be had.

    Raises:
        Unfit: names option and file.
    """
    file = SHIPPED if told == "shipped" else Path(told)
    if not file.is_file():
        raise Unfit(f"{option}: there is no file {file}")
    weights = _of_graph(file, option) if file.suffix == ".onnx" else _of_checkpoint(file, option)
    if not weights:
        raise Unfit(f"{option}: {file} holds no weights of a network of ours")
    return weights


def load_weights(network: nn.Module, weights: Weights, told: str, option: str) -> None:
    """Put them into the network.

    Raises:
        Unfit: they are another network's: names what does not fit.
    """
    mine = network.state_dict()
    wrong = [name for name, value in mine.items() if name not in weights or weights[name].shape != value.shape]
    wrong = [name for name in wrong if not name.endswith("num_batches_tracked")]
    if wrong or not set(weights) <= set(mine):
        odd = (wrong or sorted(set(weights) - set(mine)))[0]
        raise Unfit(f"{option}: the weights of {told} are of another network or other fit.widths ({odd} does not fit)")
    network.load_state_dict(weights, strict=False)


def _of_checkpoint(file: Path, option: str) -> Weights:
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as fault:  # pickle, zip and torch errors alike: it is no checkpoint
        raise Unfit(f"{option}: {file} is no checkpoint of PyTorch tensors ({type(fault).__name__})") from fault
    if not isinstance(state, dict):
        return {}
    if isinstance(state.get("average"), dict):
        return dict(state["average"])
    told = state.get("state_dict", state)
    averaged = "average.module."
    prefix = averaged if any(name.startswith(averaged) for name in told) else PREFIX
    found = {name.removeprefix(prefix): value for name, value in told.items() if name.startswith(prefix)}
    return found or {name: value for name, value in told.items() if isinstance(value, Tensor)}


def _of_graph(file: Path, option: str) -> Weights:
    """A graph's normalisations are folded into its convolutions: they come back as ones that change nothing."""
    try:
        model = onnx.load(file)
    except Exception as fault:  # protobuf's errors have no common parent
        raise Unfit(f"{option}: {file} is no ONNX graph ({type(fault).__name__})") from fault
    held = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in model.graph.initializer}
    found: Weights = {}
    for name, value in held.items():
        if not name.startswith(PREFIX) or name.endswith(".mirror"):
            continue
        plain = name.removeprefix(PREFIX)
        if plain.endswith(".weight_bias"):
            found |= _normalised(plain.removesuffix(".0.weight_bias") + ".1", value)
        else:
            found[plain] = value.float()
    return found


def _normalised(norm: str, bias: Tensor) -> Weights:
    one = torch.ones_like(bias)
    told = {"weight": one, "bias": bias, "running_mean": 0 * one, "running_var": one - NORM_EPS}
    return {f"{norm}.{name}": value.clone().float() for name, value in told.items()}
