"""The child of an import: reads a foreign model, writes ONNX. Run by `jail_call` alone, never in our own process.

The older exporter, because the newer one takes no TorchScript; it traces nothing that is not declared.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from contracts.declaration import Declaration, read_declaration
from training.networks import blast_ct
from training.serving.monai_bundle import network_of

OPSET = 18
ANY_SIDE = 32  # stands for a free size while the graph is written
TORCH_TYPES = {"FP16": torch.float16, "FP32": torch.float32, "INT32": torch.int32, "INT64": torch.int64}
ANY_SIDES = ("a", "b", "c", "d", "e")


def torchscript(source: Path) -> nn.Module:
    """A program with weights."""
    module: nn.Module = torch.jit.load(str(source), map_location="cpu")  # type: ignore[no-untyped-call]  # untyped in torch
    return module


def blast(source: Path) -> nn.Module:
    """A plain state dict of the DeepMedic layout."""
    return blast_ct.BlastCtChances(blast_ct.load(source))


def monai_weights(source: Path) -> nn.Module:
    """`models/model.pt` of a bundle, for the network that its configuration names."""
    network = network_of(source.parents[1])
    network.load_state_dict(torch.load(source, weights_only=True, map_location="cpu"))
    return network


KINDS = {"torchscript": torchscript, "blast-ct": blast, "monai-weights": monai_weights}


def write(module: nn.Module, declared: Declaration, target: Path) -> None:
    """With the declared names; free sizes stay free."""
    examples = tuple(_example(tensor.spec.dims, tensor.spec.datatype, declared) for tensor in declared.inputs)
    tensors = (*declared.inputs, *declared.outputs)
    torch.onnx.export(
        module.eval(),
        examples,
        str(target),
        dynamo=False,
        opset_version=OPSET,
        input_names=[tensor.spec.name for tensor in declared.inputs],
        output_names=[tensor.spec.name for tensor in declared.outputs],
        dynamic_axes={tensor.spec.name: _free(tensor.spec.dims, declared) for tensor in tensors},
    )


def _example(dims: tuple[int, ...], datatype: str, declared: Declaration) -> torch.Tensor:
    sizes = [ANY_SIDE if size == -1 else size for size in dims]
    shape = [1, *sizes] if declared.batched else sizes
    return torch.rand(shape).to(TORCH_TYPES[datatype])


def _free(dims: tuple[int, ...], declared: Declaration) -> dict[int, str]:
    first = int(declared.batched)
    free = {nth + first: ANY_SIDES[nth] for nth, size in enumerate(dims) if size == -1}
    return {0: "N", **free} if declared.batched else free


def main(kind: str, source: str, target: str, declaration: str) -> None:
    """One conversion."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    write(KINDS[kind](Path(source)), read_declaration(declaration, "the declaration"), Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
