"""`triage train brain-mask`: draw, fit, export triton_models/brain_mask, judge it. Some minutes on one thread."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from contracts.tensors import BRAIN_MASK
from training.brain.fit import fit, truths_of
from training.brain.judge import judged
from training.brain.slices_out import BrainSet, BrainTable, draw
from training.networks.brain_mask import MASK_PITCH_MM, MASK_SIZE, ServedBrainMask
from training.phantom.atlas_in import load_atlas
from training.serving.export_out import grid_parameters, publish
from training.serving.session_in import Slices, answers, session, slice_feed

TRAIN = BrainSet(first_seed=20_000_000, heads=70, slices_per_head=8)
HELD_OUT = BrainSet(first_seed=21_000_000, heads=14, slices_per_head=8, held_out=True)  # a scanner never trained on
REPORT = "brain_mask.json"
CONSOLE = Console(stderr=True)


def make(epochs: int, seed: int, models: Path, reports: Path, version: int, cache: Path) -> None:
    """The whole recipe of the brain mask: draw, fit, export, judge."""
    torch.set_num_threads(1)
    table, held_out = _table(TRAIN, cache), _table(HELD_OUT, cache)
    began = time.process_time()
    trunk = fit(table, epochs, batch=16, learning_rate=4e-3, seed=seed)
    spent_s = time.process_time() - began
    served = ServedBrainMask(trunk).eval()
    shown = held_out.hu[:3].astype("float32"), held_out.pitch_mm[:3]
    phantoms: Slices = [(hu, float(pitch)) for hu, pitch in zip(*shown, strict=True)]
    parity = publish(served, BRAIN_MASK, grid_parameters(MASK_SIZE, MASK_PITCH_MM), models, version, phantoms=phantoms)
    told = {
        "command": f"triage train brain-mask --epochs {epochs} --seed {seed}",
        "trained_on": f"{len(table.hu)} synthetic slices, a quarter of them no heads",
        "fit_cpu_s": round(spent_s),
        "parameters": sum(weight.numel() for weight in trunk.parameters()),
        "parity": str(parity),
    }
    _judge(told, _file(models, version), held_out, reports)


def judge_again(models: Path, reports: Path, version: int, cache: Path) -> None:
    """Write the figures of the exported file again; what is told of its fit stays.

    Raises:
        FileNotFoundError: nothing is told of its fit.
    """
    told = json.loads((reports / REPORT).read_text("utf-8"))
    _judge(told, _file(models, version), _table(HELD_OUT, cache), reports)


def _judge(told: dict[str, Any], file: Path, held_out: BrainTable, reports: Path) -> None:
    """The exported file itself is judged, never the network that it was made from."""
    told["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    told["held_out_scanner"] = judged(masks_of(file, held_out), MASK_PITCH_MM).as_dict()
    reports.mkdir(parents=True, exist_ok=True)
    (reports / REPORT).write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    CONSOLE.print_json(data=told)


def masks_of(file: Path, table: BrainTable) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(answer, truth), each (S/2, S/2), of every slice, as the file answers it when it is served."""
    running = session(file)
    for hu, pitch_mm, truth in zip(table.hu, table.pitch_mm, truths_of(table), strict=True):
        yield answers(running, slice_feed(hu, float(pitch_mm)))["MASK"][0, 0], truth


def _file(models: Path, version: int) -> Path:
    return models / BRAIN_MASK.name / str(version) / "model.onnx"


def _table(wanted: BrainSet, cache: Path) -> BrainTable:
    with Progress(console=CONSOLE) as bars:
        task = bars.add_task("heads", total=wanted.heads)
        return draw(wanted, load_atlas(cache), cache, lambda done: bars.update(task, completed=done))
