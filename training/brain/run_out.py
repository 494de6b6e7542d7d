"""`triage train brain-mask`: draw, fit, judge, export triton_models/brain_mask. Some minutes on one thread."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from contracts.tensors import BRAIN_MASK
from training.brain.fit import fit, masks_of
from training.brain.judge import judged
from training.brain.slices_out import BrainSet, BrainTable, draw
from training.networks.brain_mask import MASK_PITCH_MM, MASK_SIZE, ServedBrainMask
from training.phantom.atlas_in import load_atlas
from training.serving.export_out import grid_parameters, publish
from training.serving.session_in import Slices

TRAIN = BrainSet(first_seed=20_000_000, heads=70, slices_per_head=8)
HELD_OUT = BrainSet(first_seed=21_000_000, heads=14, slices_per_head=8, held_out=True)  # a scanner never trained on
CONSOLE = Console(stderr=True)


def make(epochs: int, seed: int, models: Path, reports: Path, version: int, cache: Path) -> None:
    """The whole recipe of the brain mask: draw, fit, judge, export."""
    torch.set_num_threads(1)
    table, held_out = _table(TRAIN, cache), _table(HELD_OUT, cache)
    began = time.process_time()
    trunk = fit(table, epochs, batch=16, learning_rate=4e-3, seed=seed)
    spent_s = time.process_time() - began
    figures = judged(masks_of(trunk, held_out), MASK_PITCH_MM)
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
        "held_out_scanner": figures.as_dict(),
    }
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "brain_mask.json").write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    CONSOLE.print_json(data=told)


def _table(wanted: BrainSet, cache: Path) -> BrainTable:
    with Progress(console=CONSOLE) as bars:
        task = bars.add_task("heads", total=wanted.heads)
        return draw(wanted, load_atlas(cache), cache, lambda done: bars.update(task, completed=done))
