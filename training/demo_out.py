"""Phantom heads for the demo: rendered once, without noise, into one small file that ships with the program.

`launch` adds noise, shift and mirror by seed and writes DICOM; it needs neither torch nor the tissue maps for that.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.phantom.atlas_in import Atlas
from training.phantom.lesions import plan_lesions
from training.phantom.plan import plan_head
from training.phantom.render import LABELS, Slices, render
from training.phantom.scanner import plan_scanner

FIRST_SEED = 9_000_000  # far from every set of the recipe
WANTED = ("intraparenchymal", "subdural", "epidural", "subarachnoid", "", "")  # "" is a head without a lesion
DIFFICULTY = (0.0, 0.2)  # the demo shows the way of a scan, not the limits of the model
SHAPE, PITCH_MM = (256, 256), 0.9
SLICES, SPACING_MM, LOWEST_MM = 26, 5.0, -58.0
LEAST_RUN = 5  # consecutive slices that must show the lesion
# HU steps (from, step): finer where the window looks, coarse in bone; noise hides them, the file stays small.
STEPS_HU = ((-2000, 128), (-200, 8), (-20, 2), (110, 16), (300, 128))


def write_demo_heads(file: Path, atlas: Atlas, tell: Callable[[str], None]) -> None:
    """Render WANTED and write `file` (.npz) and the truth beside it (.json)."""
    seed, heads, records = FIRST_SEED, [], []
    for kind in WANTED:
        slices, seed = _suitable(atlas, kind, seed)
        heads.append(_coarse(slices.hu))
        records.append(_record(kind, seed, slices))
        tell(f"seed {seed}: {kind or 'clean'}")
        seed += 1
    file.write_bytes(_packed(heads))
    truth = {
        "made_by": "triage train demo-heads",
        "synthetic": True,
        "labels": LABELS,
        "pitch_mm": PITCH_MM,
        "spacing_mm": SPACING_MM,
        "lowest_mm": LOWEST_MM,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "heads": records,
    }
    file.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n", "utf-8")


def _suitable(atlas: Atlas, kind: str, seed: int) -> tuple[Slices, int]:
    """The first head from `seed` on whose lesion, if one is wanted, shows on enough slices before the last three."""
    while True:
        lesions = plan_lesions(seed, DIFFICULTY, (kind,))[:1] if kind else ()
        slices = _rendered(atlas, seed, lesions)
        if not kind or _longest_run(slices.labels[:-3, 0] == 1) >= LEAST_RUN:
            return slices, seed
        seed += 1


def _rendered(atlas: Atlas, seed: int, lesions: Any) -> Slices:
    scanner = replace(plan_scanner(seed, ("soft",)), slab_mm=SPACING_MM, streak_hu=0.0, motion_mm=0.0)
    plan = plan_head(seed)
    plan = replace(plan, craniotomy=None, shape=replace(plan.shape, tilt_deg=plan.shape.tilt_deg / 2))
    centres = LOWEST_MM + SPACING_MM * np.arange(SLICES)
    return render(atlas, plan, lesions, scanner, centres.tolist(), shape=SHAPE, pitch_mm=PITCH_MM, noisy=False)


def _longest_run(seen: NDArray[np.bool_]) -> int:
    longest = run = 0
    for one in seen:
        run = run + 1 if one else 0
        longest = max(longest, run)
    return longest


def _coarse(hu: NDArray[np.float32]) -> NDArray[np.int16]:
    edges = [start for start, _ in STEPS_HU]
    step = np.array([s for _, s in STEPS_HU])[np.searchsorted(edges, hu, "right") - 1]
    return np.asarray(np.round(hu / step) * step, np.int16)


def _packed(heads: list[NDArray[np.int16]]) -> bytes:
    """An .npz that numpy opens, packed with LZMA (a third smaller than deflate) and the same bytes on every run."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archive:
        for nth, head in enumerate(heads):
            plain = io.BytesIO()
            np.save(plain, head)
            entry = zipfile.ZipInfo(f"head_{nth}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_LZMA
            archive.writestr(entry, plain.getvalue())
    return packed.getvalue()


def _record(kind: str, seed: int, slices: Slices) -> dict[str, Any]:
    area = slices.masks.sum((2, 3)) * PITCH_MM**2
    return {
        "seed": seed,
        "lesion": kind or None,
        "truth": "lesion" if kind else "clean",
        "labels_by_slice": slices.labels.tolist(),
        "volume_ml": _volumes(area),
    }


def _volumes(area_mm2: NDArray[np.float64]) -> dict[str, float]:
    """Millilitres of each lesion kind present, from its areas (slices, 5)."""
    ml = area_mm2.sum(0) * SPACING_MM / 1000
    return {label: round(float(v), 1) for label, v in zip(LABELS[1:], ml, strict=True) if v > 0}
