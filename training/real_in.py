"""Real bleed-free scans that a user may have at hand: to count false alarms on, or to plant bleeds in.

Never copied, never required.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image

from training.phantom.hosts import Host, host_of, restored

ASSUMED_PNG_MM = 0.45  # 8-bit exports carry no spacing; a head fills 512 pixels at about this pitch


def read_dicom_folder(folder: Path) -> list[tuple[NDArray[np.float32], float]]:
    """(HU (H, W), pixel spacing mm) of every CT image of a folder, from the feet upwards."""
    images = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
    images.sort(key=lambda image: float(image.ImagePositionPatient[2]))
    return [
        (
            image.pixel_array.astype(np.float32) * float(image.RescaleSlope) + float(image.RescaleIntercept),
            float(image.PixelSpacing[0]),
        )
        for image in images
    ]


def read_png_folder(folder: Path) -> list[tuple[NDArray[np.float32], float]]:
    """(HU, pitch) of 8-bit pictures that hold HU clipped to 0…255; zero outside the head is taken for air."""
    found = []
    for file in sorted(folder.glob("*.png")):
        grey = np.asarray(Image.open(file).convert("L"), np.float32)
        found.append((np.where(grey == 0, -5.0, grey), ASSUMED_PNG_MM))
    return found


def read_hosts(folder: Path) -> list[Host]:
    """The DICOM slices and 8-bit pictures of a folder, to plant bleeds in.

    Raises:
        ValueError: there is none.
    """
    pictures = [(restored(hu, pitch_mm), pitch_mm) for hu, pitch_mm in read_png_folder(folder)]
    found = [host_of(hu, pitch_mm) for hu, pitch_mm in [*read_dicom_folder(folder), *pictures]]
    if not found:
        raise ValueError(f"{folder}: holds no .dcm and no .png to plant bleeds in")
    return found
