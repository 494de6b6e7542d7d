"""Smaller and faster makes of one graph, what each costs in accuracy, and the rule that chooses. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import onnx
from onnxruntime.transformers.float16 import convert_float_to_float16

# The rule, written into every report.
AUC_LOSS, DICE_LOSS, FLIPPED_SHARE, FASTER = 0.005, 0.01, 0.02, 1.1
RULE = (
    f"The fastest candidate that loses at most {AUC_LOSS} of the image AUC and {DICE_LOSS} of the Dice, moves at most "
    f"{FLIPPED_SHARE:.0%} of the slices across their operating point, keeps within TensorRT's operators, and is at "
    f"least {FASTER} times as fast as the original; where there is none, the original."
)
HEAD = "| candidate | kB | speed | image AUC | Dice | largest change | slices moved | within the rule |"


@dataclass(frozen=True)
class Measured:
    """``speed``: how many times as fast as the original, in processor time of one run of all. ``auc``: None of a model
    without labels. ``flipped``: share of slices on the other side of the operating point; ``change``: the largest of
    any probability.
    """

    name: str
    size_bytes: int
    speed: float
    auc: float | None
    dice: float
    change: float
    flipped: float
    problems: tuple[str, ...] = ()


def allowed(one: Measured, original: Measured) -> bool:
    """Whether the rule lets it be chosen, its speed aside."""
    return (
        not one.problems
        and (one.auc is None or original.auc is None or one.auc >= original.auc - AUC_LOSS)
        and one.dice >= original.dice - DICE_LOSS
        and one.flipped <= FLIPPED_SHARE
    )


def best(found: Sequence[Measured]) -> Measured:
    """By the rule; the first is the original."""
    original = found[0]
    able = [one for one in found[1:] if allowed(one, original) and one.speed >= FASTER]
    return max(able, key=lambda one: one.speed, default=original)


def table(found: Sequence[Measured]) -> str:
    """Markdown."""
    rows = [HEAD, "|---|---|---|---|---|---|---|---|"]
    for one in found:
        within = "the original" if one is found[0] else "yes" if allowed(one, found[0]) else "no"
        area = "–" if one.auc is None else f"{one.auc:.3f}"
        note = f" ({'; '.join(one.problems)})" if one.problems else ""
        rows.append(
            f"| {one.name} | {one.size_bytes / 1000:.0f} | {one.speed:.2f} | {area} | {one.dice:.3f} "
            f"| {one.change:.3f} | {one.flipped:.1%} | {within}{note} |"
        )
    return "\n".join(rows)


def as_json(found: Sequence[Measured], chosen: Measured, **facts: Any) -> dict[str, Any]:
    """All of it."""
    return {**facts, "rule": RULE, "chosen": chosen.name, "candidates": [asdict(one) for one in found]}


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """FP16 from the first convolution on. What comes before counts pixels and millimetres, beyond FP16's range."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for nth, node in enumerate(copy.graph.node):
        node.name = node.name or f"node_{nth}"
    found: onnx.ModelProto = convert_float_to_float16(
        copy, keep_io_types=True, node_block_list=list(_before_first_convolution(copy)), disable_shape_infer=False
    )
    del found.graph.value_info[:]  # some still tell the old type
    return found


def _before_first_convolution(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        if node.op_type == "Conv":
            return
        yield node.name
