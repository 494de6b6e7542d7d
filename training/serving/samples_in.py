"""Slices on which engines are compared: a real head, a real trunk, and phantoms of the caller's."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.data import get_testdata_file

from training.serving.session_in import Slices

# Of the pydicom package (MIT): an axial head CT whose PixelRepresentation is wrong on purpose, and two trunks.
REAL_HEAD, REAL_OTHERS = "J2K_pixelrep_mismatch.dcm", ("CT_small.dcm",)


def real_slices(names: tuple[str, ...] = (REAL_HEAD,)) -> Slices:
    """HU (H, W) and pitch in mm of each."""
    found = []
    for name in names:
        image = pydicom.dcmread(str(get_testdata_file(name)))
        if name == REAL_HEAD:
            image.PixelRepresentation = 1  # what its codestream says
        hu = image.pixel_array.astype(np.float32) * float(image.RescaleSlope) + float(image.RescaleIntercept)
        found.append((hu, float(image.PixelSpacing[0])))
    return found


def drawn_slices(count: int = 3, seed: int = 0) -> Slices:
    """Discs of brain density in a ring of bone, with noise: no atlas needed, every window of the graph is reached."""
    rng = np.random.default_rng(seed)
    found: Slices = []
    for side, pitch in [(512, 0.45), (256, 0.9), (320, 0.7)][:count]:
        rows, columns = (np.mgrid[:side, :side] - side / 2) * pitch
        away = np.hypot(rows, columns * rng.uniform(1.1, 1.3))
        hu = np.where(away < 70, 32.0, np.where(away < 78, 1100.0, np.where(away < 84, 20.0, -1000.0)))
        hu[np.hypot(rows + 20, columns - 25) < rng.uniform(8, 20)] = 65.0
        found.append(((hu + rng.normal(0, 5, hu.shape)).astype(np.float32), pitch))
    return found
