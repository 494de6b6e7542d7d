"""`triage models compress`: makes the candidates, measures each for speed and accuracy in one run, writes the table."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from contracts.declaration import FILE, Declaration, read_declaration
from contracts.errors import ModelRefused
from training.cli import cache_dir
from training.evaluation.measure import auc, dice
from training.fit.augment import NONE, to_grid
from training.phantom.atlas_in import load_atlas
from training.recipe import SliceSet
from training.serving.compression import RULE, Measured, as_json, best, halved, table
from training.serving.export_out import write_graph, write_version
from training.serving.graph import operator_problems
from training.serving.pruning import thinned
from training.serving.samples_in import real_slices
from training.serving.session_in import Feed, answers, session, slice_feed
from training.serving.tuning import tuned
from training.serving.verify_call import served
from training.slices_out import SliceTable, draw_slices

CALIBRATION_SEED, JUDGEMENT_SEED, TUNING_SEED = (
    8_000_000,
    8_100_000,
    8_200_000,
)  # of no training, validation or evaluation set
SLICES_PER_HEAD = 4
PRUNED_SHARES = (0.25, 0.5)
ROUNDS = 15  # the original and every candidate in turn, so that a busy machine slows all alike


@dataclass(frozen=True)
class Judged:
    """What accuracy is measured on: feeds, truth of `any` (0, 1; NaN not asked), masks on the served grid."""

    feeds: list[dict[str, NDArray[Any]]]
    sick: NDArray[np.float64]
    masks: list[NDArray[np.bool_]]


def compressed(  # which, measured on how many, tuned how long, as what, where to
    model: Path, version: int | None, heads: int, target: int | None, reports: Path, tune_steps: int
) -> str:
    """The report's text; with ``target`` the chosen candidate becomes that version (not yet served).

    ``tune_steps``: of each pruned candidate; 120 take half a minute of one core.

    Raises:
        ModelRefused: there is no such version, it takes no HU slices, or ``target`` is there already.
    """
    number = served(model) if version is None else version
    folder = model / str(number)
    declared = _declared(folder)
    if target is not None and (model / str(target)).exists():
        raise ModelRefused(f"{model / str(target)} is there already: a version is never overwritten")
    graph = onnx.load(folder / "model.onnx")
    atlas, cache = load_atlas(cache_dir()), cache_dir()
    calibration, tuning, judgement = (
        draw_slices(_set(seed, heads), atlas, cache) for seed in (CALIBRATION_SEED, TUNING_SEED, JUDGEMENT_SEED)
    )
    judged = judged_on(judgement)
    made = dict(candidates(graph, feeds_of(calibration), feeds_of(tuning), tune_steps))
    found = measured(made, declared, judged)
    chosen = best(found)
    facts = {
        "model": declared.name,
        "version": number,
        "heads": heads,
        "slices": len(judged.feeds),
        "tune_steps": tune_steps,
    }
    head = f"# Compression of {declared.name} {number}"
    text = "\n\n".join([head, _words(facts), table(found), RULE, f"Chosen: {chosen.name}."]) + "\n"
    reports.mkdir(parents=True, exist_ok=True)
    stem = reports / f"{declared.name}_compression"
    stem.with_suffix(".md").write_text(text, "utf-8")
    told = json.dumps(as_json(found, chosen, **facts), indent=1)
    stem.with_suffix(".json").write_text(told + "\n", "utf-8")
    if target is not None:
        _write(made[chosen.name], declared, model / str(target), f"{chosen.name} of version {number}")
    return text


def _words(facts: dict[str, Any]) -> str:
    tuned = f"tuned for {facts['tune_steps']} steps on as many again to answer as the original does"
    return (
        f"Measured on {facts['slices']} synthetic slices of {facts['heads']} heads that no training saw; INT8 is "
        "calibrated on as many others. Speed is processor time of one thread beside the original's, all in turn in one "
        "run, on a real 512² head slice. Pruned candidates have lost the weakest channels of every inner layer and "
        f"are {tuned if facts['tune_steps'] else 'not tuned'}. –: the model has no labels, so there is no AUC, and "
        "Dice is with the original's own mask."
    )


def _set(seed: int, heads: int) -> SliceSet:
    return SliceSet(seed, heads, SLICES_PER_HEAD, lesion_share=0.6, difficulty=(0.2, 1.0))


def _declared(folder: Path) -> Declaration:
    if not (folder / FILE).is_file():
        raise ModelRefused(f"{folder} holds no version that declares itself.")
    declared = read_declaration((folder / FILE).read_text("utf-8"), str(folder / FILE))
    if {tensor.spec.name for tensor in declared.inputs} != {"HU", "PIXEL_SPACING"}:
        raise ModelRefused(f"{declared.name} takes no HU slices: there is nothing to calibrate it on or judge it by.")
    return declared


def feeds_of(drawn: SliceTable) -> list[dict[str, NDArray[Any]]]:
    """As scoring sends them."""
    return [slice_feed(hu, float(pitch)) for hu, pitch in zip(drawn.hu, drawn.pitch_mm, strict=True)]


def judged_on(drawn: SliceTable) -> Judged:
    """A table as what accuracy is measured on."""
    hu, masks = torch.from_numpy(drawn.hu.astype(np.float32)), torch.from_numpy(drawn.masks().astype(np.float32))
    _, truth = to_grid(hu, masks, torch.from_numpy(drawn.pitch_mm), NONE, torch.Generator())
    sick = np.where(drawn.labels[:, 0] == 0.5, np.nan, drawn.labels[:, 0]).astype(np.float64)
    return Judged(feeds_of(drawn), sick, list((truth.numpy() > 0.5).any(1)))


def candidates(
    graph: onnx.ModelProto,
    calibration: list[dict[str, NDArray[Any]]],
    tuning: list[dict[str, NDArray[Any]]],
    tune_steps: int,
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """The original first."""
    yield "FP32 (original)", graph
    yield "FP16", halved(graph)
    yield "INT8", quantised(graph, calibration)
    for share in PRUNED_SHARES:
        small = tuned(thinned(graph, share), graph, tuning, tune_steps)
        yield f"pruned {share:.0%}", small
        yield f"pruned {share:.0%} + INT8", quantised(small, calibration)


class _Feeds(CalibrationDataReader):
    def __init__(self, feeds: list[dict[str, NDArray[Any]]]) -> None:
        self._left = iter(feeds)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """One feed, None at the end."""
        return next(self._left, None)


def quantised(graph: onnx.ModelProto, calibration: list[dict[str, NDArray[Any]]]) -> onnx.ModelProto:
    """Convolutions in INT8, symmetric, weights by channel: what ONNX Runtime and TensorRT both take (QDQ)."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        onnx.save(graph, source)
        quantize_static(
            source,
            target,
            _Feeds(calibration),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
            extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
        )
        found: onnx.ModelProto = onnx.load(target)
    return found


def measured(made: dict[str, onnx.ModelProto], declared: Declaration, judged: Judged) -> list[Measured]:
    """Each candidate; the first is the original."""
    files = {name: graph.SerializeToString() for name, graph in made.items()}
    running = {name: session(file) for name, file in files.items()}
    speeds = _speeds({name: lambda feed, one=one: answers(one, feed) for name, one in running.items()})  # type: ignore[misc]  # one is bound now
    told = {name: [answers(one, feed) for feed in judged.feeds] for name, one in running.items()}
    original = next(iter(told.values()))
    return [
        Measured(
            name=name,
            size_bytes=len(files[name]),
            speed=round(speeds[name], 3),
            problems=tuple(operator_problems(made[name])),
            **_accuracy(one, original, declared, judged),
        )
        for name, one in told.items()
    ]


def _speeds(runs: dict[str, Callable[[Feed], Any]]) -> dict[str, float]:
    feed = slice_feed(*real_slices()[0])
    spent: dict[str, list[float]] = {name: [] for name in runs}
    for at in range(ROUNDS + 1):
        for name, run in runs.items():
            began = time.process_time()
            run(feed)
            if at:  # the first round warms up
                spent[name].append(time.process_time() - began)
    first = statistics.median(next(iter(spent.values())))
    return {name: first / statistics.median(taken) for name, taken in spent.items()}


def _accuracy(told: list[Any], original: list[Any], declared: Declaration, judged: Judged) -> dict[str, Any]:
    """Without labels there is no AUC (None): a mask is judged by how well it keeps to the original's."""
    if not declared.labels:
        masks = [
            (one["MASK"][0, 0] >= 0.5, first["MASK"][0, 0] >= 0.5) for one, first in zip(told, original, strict=True)
        ]
        change = max(float(np.abs(o["MASK"] - f["MASK"]).max()) for o, f in zip(told, original, strict=True))
        moved = float(np.mean([bool(a.any()) != bool(b.any()) for a, b in masks]))
        return {
            "auc": None,
            "dice": _mean([dice(a, b) for a, b in masks if b.any()]),
            "change": change,
            "flipped": moved,
        }
    threshold = float(declared.parameters["threshold.any"])
    score, before = (np.array([one["PROBABILITIES"][0, 0] for one in some], np.float64) for some in (told, original))
    asked = ~np.isnan(judged.sick)
    ill = [n for n, mask in enumerate(judged.masks) if judged.sick[n] == 1 and mask.any()]
    return {
        "auc": round(auc(judged.sick[asked], score[asked]), 4),
        "dice": _mean([dice((told[n]["SEGMENTATION"][0] > 0.5).any(0), judged.masks[n]) for n in ill]),
        "change": round(float(np.abs(score - before).max()), 4),
        "flipped": round(float(((score >= threshold) != (before >= threshold)).mean()), 4),
    }


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 4) if values else float("nan")


def _write(graph: onnx.ModelProto, declared: Declaration, folder: Path, origin: str) -> None:
    write_graph(graph, declared.parameters, folder / "model.onnx")
    facts = {name: value for name, value in declared.facts.items() if name not in {"sha256", "parity"}}
    write_version(replace(declared, facts={**facts, "compressed": origin}), folder, serve=False)
