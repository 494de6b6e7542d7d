"""Phantom slices per second on one core at 512 × 512.

The anchor is what remains when nothing is drawn: Gaussian noise of a slice's size, rounded and written.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.figure import Figure
from training.cli import cache_dir
from training.phantom.atlas_in import load_atlas
from training.phantom.dicom_out import images_of
from training.phantom.series import Wish, draw_series, plan_series

AIM_PER_S = 4.0  # a routine study of thirty slices in eight seconds
SEED, SLICES, STUDIES = 7_000, 30, 3
THICKNESS_MM = (5.0, 1.0)


def phantom_speed() -> list[Figure]:
    """Routine 5 mm slices, and thin ones."""
    torch.set_num_threads(1)
    atlas, anchor_per_s = load_atlas(cache_dir()), _blank_per_s()
    figures = []
    for slice_mm in THICKNESS_MM:
        plans = [plan_series(SEED + nth, Wish(slice_mm=slice_mm, slices=SLICES)) for nth in range(STUDIES)]
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            done = 0
            for plan in plans:
                for image in images_of(draw_series(plan, atlas)):
                    image.save_as(Path(folder) / "image.dcm", enforce_file_format=True)
                    done += 1
        note = f"slices/s drawn and written, one thread, 512×512, {STUDIES} studies of {SLICES}; anchor: noise only"
        speed = done / (time.perf_counter() - began)
        figures.append(Figure(f"phantom slices per second, {slice_mm:g} mm", speed, anchor_per_s, AIM_PER_S, note))
    return figures


def _blank_per_s() -> float:
    rng = np.random.default_rng(0)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(SLICES):
            noise = np.round(rng.standard_normal((512, 512), np.float32) * 4).astype(np.int16)
            (Path(folder) / "image.raw").write_bytes(noise.tobytes())
    return SLICES / (time.perf_counter() - began)
