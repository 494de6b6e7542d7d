"""Low-rank adapters on convolutions (LoRA, Hu 2021): few weights learn, and in the end the network is what it was.

A k×k convolution to `rank` channels and a 1×1 convolution back are added beside each frozen one; `merged` puts their
product into the frozen weights, so that layout and speed of the served network do not change.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

HEADS = ("paint", "hidden", "answer")  # small, and closest to what differs between hospitals: they learn as a whole


class Adapted(nn.Module):
    """A frozen convolution and its adapter, which starts as nothing."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.conv = conv.requires_grad_(requires_grad=False)
        self.narrow = copy.deepcopy(conv)  # the same geometry, but
        self.narrow.weight = nn.Parameter(torch.empty(rank, *conv.weight.shape[1:]))
        self.narrow.bias, self.narrow.out_channels = None, rank
        nn.init.kaiming_uniform_(self.narrow.weight, a=5**0.5)
        self.wide = nn.Conv2d(rank, conv.out_channels, 1, bias=False)
        nn.init.zeros_(self.wide.weight)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution, and what the adapter has learned."""
        told: Tensor = self.conv(x) + self.wide(self.narrow(x))
        return told

    def merged(self) -> nn.Conv2d:
        """One convolution that answers the same."""
        conv = copy.deepcopy(self.conv)
        with torch.no_grad():
            conv.weight += torch.einsum("or,rikl->oikl", self.wide.weight[:, :, 0, 0], self.narrow.weight)
        return conv


def adapted(network: nn.Module, rank: int) -> nn.Module:
    """The network, frozen but for its heads and an adapter on every convolution wider than a point."""
    network.requires_grad_(requires_grad=False)
    for parent, name, conv in _convolutions(network):
        setattr(parent, name, Adapted(conv, rank))
    for head in HEADS:
        getattr(network, head).requires_grad_(requires_grad=True)
    return network


def merged(network: nn.Module) -> nn.Module:
    """The network without adapters, and with what they have learned."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Adapted):
                setattr(parent, name, child.merged())
    return network


def _convolutions(network: nn.Module) -> list[tuple[nn.Module, str, nn.Conv2d]]:
    return [
        (parent, name, child)
        for parent in network.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Conv2d) and child.kernel_size != (1, 1)
    ]
