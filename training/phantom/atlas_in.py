"""The anatomy the phantom is made of, read from the MNI152 tissue maps inside the installed nilearn wheel.

The maps are a build-time dependency: read where pip put them, turned into distance fields, kept in a cache outside
the clone, never copied into the project.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import nibabel
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

ATLAS_VERSION = 4  # raise it when build_atlas changes: an older cache file is then built again
PAD_BELOW_MM = 40  # the maps end at the cerebellum; skull base and neck lie below
CLOSING_MM = 9.0  # bridges sulci and the Sylvian fissure, keeps the fossae apart
CSF_MARGIN_MM = 1.5  # the stripped maps end on the pia; the inner table lies a little further out
VENTRICLE_BOX_MM = ((-32, 32), (-52, 34), (1, 38))  # RAS; fissures and cisterns outside it are not ventricle
VENTRICLE_DEPTH_MM = 24.0  # CSF nearer to the skull than this is a sulcus or a cistern


@dataclass(frozen=True)
class Atlas:
    """Fields on a 1 mm grid, axis order [channel, z, y, x], coordinates RAS in mm.

    depth: (1, Z, Y, X), mm inside the inner table, negative outside. brain: (3, Z, Y, X) grey, white (0…1) and the
    signed distance to the ventricles in mm (negative inside).
    """

    depth: torch.Tensor
    brain: torch.Tensor
    origin_mm: tuple[float, float, float]


def load_atlas(cache_dir: Path) -> Atlas:
    """The atlas from the cache, built on first use (about ten seconds)."""
    file = cache_dir / f"atlas-{ATLAS_VERSION}.npz"
    if not file.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **build_atlas())
        partial.replace(file)
    with np.load(file) as stored:
        depth = torch.from_numpy(stored["depth"].astype(np.float32))
        brain = torch.from_numpy(stored["brain"].astype(np.float32))
        x, y, z = (float(v) for v in stored["origin_mm"])
    return Atlas(depth=depth, brain=brain, origin_mm=(x, y, z))


def build_atlas() -> dict[str, NDArray[np.float32] | NDArray[np.float16]]:
    """Tissue fractions, intracranial depth and ventricle distance from the installed maps."""
    grey, white, inside = _tissue_maps()
    cavity = _grown(_shrunk(_grown(inside, CLOSING_MM), CLOSING_MM) | inside, CSF_MARGIN_MM)
    depth = _signed_depth(cavity)
    origin = np.array([-98.0, -134.0, -72.0 - PAD_BELOW_MM], np.float32)
    ventricles = _ventricles(grey + white, depth, origin)
    brain = np.stack([grey, white, -_signed_depth(ventricles)])
    return {"depth": depth[None].astype(np.float16), "brain": brain.astype(np.float16), "origin_mm": origin}


def _tissue_maps() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Grey and white fractions and the stripped head's mask, axes [z, y, x], padded below."""
    folder = resources.files("nilearn") / "datasets" / "data"
    maps = []
    for kind in ("gm", "wm", "t1"):
        with resources.as_file(folder / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz") as path:
            image: nibabel.nifti1.Nifti1Image = nibabel.load(path)
            volume = np.asarray(image.dataobj, np.float32).transpose(2, 1, 0)
        maps.append(np.pad(volume, ((PAD_BELOW_MM, 0), (0, 0), (0, 0))))
    return maps[0] / 255.0, maps[1] / 255.0, maps[2] > 0.0


def _grown(mask: NDArray[np.bool_], by_mm: float) -> NDArray[np.bool_]:
    return np.asarray(ndimage.distance_transform_edt(~mask) <= by_mm)


def _shrunk(mask: NDArray[np.bool_], by_mm: float) -> NDArray[np.bool_]:
    return np.asarray(ndimage.distance_transform_edt(mask) > by_mm)


def _signed_depth(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    inner = ndimage.distance_transform_edt(mask)
    outer = ndimage.distance_transform_edt(~mask)
    return np.asarray(inner - outer, np.float32)


def _ventricles(
    tissue: NDArray[np.float32], depth: NDArray[np.float32], origin_mm: NDArray[np.float32]
) -> NDArray[np.bool_]:
    fluid = (tissue < 0.5) & (depth > VENTRICLE_DEPTH_MM)
    for axis, (low, high) in zip((2, 1, 0), VENTRICLE_BOX_MM, strict=True):
        at_mm = origin_mm[2 - axis] + np.arange(fluid.shape[axis])
        shape = [1, 1, 1]
        shape[axis] = -1
        fluid &= ((at_mm >= low) & (at_mm <= high)).reshape(shape)
    parts, _ = ndimage.label(fluid)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(np.isin(parts, np.flatnonzero(sizes > 400)))  # mm³: smaller islands are fissure or map noise
