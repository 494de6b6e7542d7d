"""The network a fit starts with: by chance, loaded, pre-trained, frozen in parts, with adapters. And its teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from training.fit.data import Batches, Slices, Unfit
from training.fit.loop_out import hushed, steady, trainer_of
from training.fit.options import FitSettings
from training.fit.pretrain import Pretraining
from training.fit.weights_in import load_weights, read_weights
from training.networks.adapters import adapted
from training.networks.student import Trunk
from training.networks.teacher import Teacher


def made(settings: FitSettings) -> Trunk | Teacher:
    """With weights by chance of this seed."""
    steady(settings.seed)
    if settings.network == "teacher":
        return Teacher(settings.widths, settings.dropout)
    return Trunk(settings.widths, settings.dropout)


def started(
    settings: FitSettings,
    unlabelled: Slices | None = None,
    *,
    quiet: bool = False,
    tell: Callable[[str], None] = lambda _sentence: None,
) -> nn.Module:
    """The network as the fit shall find it. `unlabelled`: slices to pre-train on.

    Raises:
        Unfit: names the option that cannot be met.
    """
    network = made(settings)
    if settings.start_from:
        weights = read_weights(settings.start_from, "fit.start_from")
        load_weights(network, weights, settings.start_from, "fit.start_from")
        tell(f"starting from {settings.start_from}")
    if settings.pretrain != "none" and isinstance(network, Trunk):
        if unlabelled is None:
            raise Unfit("fit.pretrain: there are no slices to pre-train on")
        losses = pretrained(network, settings, unlabelled, quiet=quiet)
        tell(f"pre-trained ({settings.pretrain}): loss {losses[0]:.3f} to {losses[-1]:.3f}")
    if settings.adapter_rank:
        return adapted(network, settings.adapter_rank)
    frozen(network, settings.freeze)
    return network


def pretrained(network: Trunk, settings: FitSettings, slices: Slices, *, quiet: bool = False) -> list[float]:
    """Shape the network in place; the loss of each step."""
    alone = dataclasses.replace(
        settings, epochs=settings.pretrain_epochs, processes=1, pseudo="none", imbalance="none", early_stop=0
    )
    batches = Batches(slices, None, dataclasses.replace(alone, schedule="constant"))
    fitting = Pretraining(network, alone)
    with hushed():
        trainer_of(alone, None, quiet=quiet, epochs=alone.epochs).fit(fitting, datamodule=batches)
    network.cpu()
    return fitting.losses


def frozen(network: nn.Module, parts: tuple[str, ...]) -> None:
    """These parts learn no more.

    Raises:
        Unfit: there is no such part, or nothing is left to learn.
    """
    known = {name for name, part in network.named_modules() if name and any(True for _ in part.parameters())}
    for part in parts:
        if part not in known:
            top = ", ".join(sorted(name for name in known if "." not in name))
            raise Unfit(f"fit.freeze: the network has no part {part!r}; its parts are {top}")
        network.get_submodule(part).requires_grad_(requires_grad=False)
    if not any(one.requires_grad for one in network.parameters()):
        raise Unfit("fit.freeze: nothing is left to learn")


def teacher_of(settings: FitSettings) -> nn.Module | None:
    """Whom the student learns from: a teacher's weights, or a student's, told by what they are.

    Raises:
        Unfit: the file holds neither.
    """
    if not settings.teacher:
        return None
    weights = read_weights(settings.teacher, "fit.teacher")
    network: nn.Module
    if any(name.startswith("body.") for name in weights):
        network = Teacher(_teacher_widths(weights))
    else:
        levels = len({name.split(".")[1] for name in weights if name.startswith("down.")})
        names = ["stem.0.0.weight", *(f"down.{nth}.0.0.weight" for nth in range(levels))]
        if not all(name in weights for name in names):
            raise Unfit(f"fit.teacher: {settings.teacher} holds no weights of a network of ours")
        network = Trunk(tuple(len(weights[name]) for name in names))
    load_weights(network, weights, settings.teacher, "fit.teacher")
    return network.eval()


def _teacher_widths(weights: dict[str, torch.Tensor]) -> tuple[int, ...]:
    downs = sorted({name.split(".")[2] for name in weights if name.startswith("body.downsamples.")}, key=int)
    names = ["body.input_block", *(f"body.downsamples.{nth}" for nth in downs), "body.bottleneck"]
    return tuple(len(weights[f"{name}.conv1.conv.weight"]) for name in names)


def absolute(settings: FitSettings, beside: Path) -> FitSettings:
    """Files that a recipe names lie beside it, unless it says otherwise."""

    def found(told: str) -> str:
        return told if told in {"", "shipped"} else str((beside / Path(told).expanduser()).absolute())

    return dataclasses.replace(
        settings,
        start_from=found(settings.start_from),
        teacher=found(settings.teacher),
        unlabelled=found(settings.unlabelled),
    )
