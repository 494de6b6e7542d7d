"""Real bleed-free scans that a user may have at hand: to count false alarms on, or to plant bleeds in.

Never copied, never required.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.dicom_in import files_under, read_headers, read_hu
from training.data.geometry import Header
from training.data.hounsfield import why_not_hu
from training.data.study import BadStudy, Fault, NotHounsfield
from training.phantom.hosts import Host, host_of, restored

Images = list[tuple[NDArray[np.float32], float]]
ASSUMED_PNG_MM = 0.45  # 8-bit exports carry no spacing; a head fills 512 pixels at about this pitch


def read_ct_folder(folder: Path) -> Images:
    """(HU (H, W), pixel spacing mm) of every axial CT slice below a folder, from the feet upwards; no localisers.

    Raises:
        BadStudy: names the file that cannot be read, is no axial CT slice, or holds no HU.
    """
    headers, doubts = read_headers(files_under(folder))
    for doubt in doubts:
        if not doubt.mild:
            raise BadStudy(doubt.file, doubt.sentence, doubt.fault)
    for header in headers:
        if header.modality != "CT":
            raise BadStudy(header.file, f"is {header.modality}, no CT slice", Fault.NOT_HEAD)
    slices = sorted((one for one in headers if one.is_slice), key=lambda one: (one.place_mm or 0.0, one.file))
    pixels = [read_hu(header.file)[0] for header in slices]
    _check_units(slices, pixels)
    return [(hu.astype(np.float32), _pitch_mm(header)) for hu, header in zip(pixels, slices, strict=True)]


def _pitch_mm(header: Header) -> float:
    if header.pixel_mm is None:
        raise BadStudy(header.file, "has no PixelSpacing", Fault.SPACING)
    if not header.axial:
        raise BadStudy(header.file, "is not axial", Fault.ORIENTATION)
    return header.pixel_mm[0]


def _check_units(slices: list[Header], pixels: list[NDArray[np.int16]]) -> None:
    """Asked of a series: a slice alone may lack what a head has."""
    for series in {header.series_uid for header in slices}:
        of = [nth for nth, header in enumerate(slices) if header.series_uid == series]
        reason = why_not_hu(np.concatenate([pixels[nth].ravel() for nth in of]))
        if reason is not None:
            raise NotHounsfield(slices[of[0]].file, f"and its series hold no HU: {reason}")


def read_png_folder(folder: Path) -> Images:
    """(HU, pitch) of 8-bit pictures that hold HU clipped to 0…255; zero outside the head is taken for air.

    Raises:
        BadStudy: names the file that is no picture.
    """
    found = []
    for file in sorted(folder.glob("*.png")):
        try:
            grey = np.asarray(Image.open(file).convert("L"), np.float32)
        except (OSError, SyntaxError) as fault:  # the latter of a broken PNG
            raise BadStudy(file, "is no picture that can be read") from fault
        found.append((np.where(grey == 0, -5.0, grey), ASSUMED_PNG_MM))
    return found


def read_hosts(folder: Path) -> list[Host]:
    """The DICOM slices and 8-bit pictures of a folder, to plant bleeds in.

    Raises:
        BadStudy: there is none, or one cannot be read.
    """
    pictures = [(restored(hu, pitch_mm), pitch_mm) for hu, pitch_mm in read_png_folder(folder)]
    found = [host_of(hu, pitch_mm) for hu, pitch_mm in [*read_ct_folder(folder), *pictures]]
    if not found:
        raise BadStudy(folder, "holds no .dcm and no .png to plant bleeds in", Fault.EMPTY)
    return found


def digests(images: Iterable[tuple[NDArray[np.float32], float]]) -> frozenset[str]:
    """Of each picture's soft tissue, so that a slice and its 8-bit export are the same; a blank one has none."""
    grey = [np.clip(np.rint(hu), 0, 255).astype(np.uint8) for hu, _ in images]
    return frozenset(
        hashlib.sha256(f"{one.shape}".encode() + one.tobytes()).hexdigest()[:32] for one in grey if one.any()
    )


def digests_of(folder: Path) -> frozenset[str]:
    """Of every slice and picture of a folder."""
    return digests([*read_ct_folder(folder), *read_png_folder(folder)])
