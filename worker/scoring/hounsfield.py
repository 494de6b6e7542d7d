"""Stored values → Hounsfield units: rescaled, padding turned into air, clipped, FP16. Pure."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from contracts.tensors import HU_HIGH, HU_LOW
from worker.scoring.facts import FrameFacts, value_of
from worker.scoring.frame import Pixels

Hounsfield = NDArray[np.float16]

_TISSUE_HU = (-200.0, 200.0)  # padding inside this range could be anatomy: only where it touches the border
# FP16 of every whole HU: a look-up is several times faster than a conversion.
_FP16_OF_HU: Hounsfield = np.arange(HU_LOW, HU_HIGH + 1, dtype=np.float32).astype(np.float16)


def hounsfield(stored: Pixels, facts: FrameFacts, data: Dataset) -> Hounsfield:
    """Stored values → HU, (rows, columns), within −1024…3071; padding becomes −1024 (PS3.3 C.7.5.1.1.2).

    Photometric interpretation plays no part: MONOCHROME1 turns the grey scale of the display around, which comes
    after the Modality LUT (PS3.3 C.7.6.3.1.2, C.11.1); the rescaled value is HU either way.
    """
    slope, intercept = facts.slope, facts.intercept
    if slope is None or intercept is None:
        raise NotAnalysable(Reason.UNITS_UNKNOWN, "no rescale slope or intercept")
    hu = _rescaled(stored, slope, intercept)
    padded = _padding(stored, data, slope, intercept)
    if padded is not None:
        hu[padded] = HU_LOW
    return hu


def _rescaled(stored: Pixels, slope: float, intercept: float) -> Hounsfield:
    if slope == 1.0 and intercept.is_integer() and abs(intercept) < 2**15 and stored.dtype.itemsize <= 2:  # noqa: PLR2004 (up to 16 bits)
        index = stored.astype(np.int32)
        index += int(intercept) - HU_LOW
        return _FP16_OF_HU.take(index, mode="clip")
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    if np.isnan(values).any():
        raise NotAnalysable(Reason.UNITS_UNKNOWN, "rescaled to what is no number")
    return np.clip(values, HU_LOW, HU_HIGH, out=values).astype(np.float16)


def _padding(stored: Pixels, data: Dataset, slope: float, intercept: float) -> NDArray[np.bool_] | None:
    """Which pixels are padding, or None. The limit may stand on either side of the value (PS3.3 C.7.5.1.1.2)."""
    value = _stored_int(value_of(data, "PixelPaddingValue"), stored.dtype)
    if value is None:
        return None
    limit = _stored_int(value_of(data, "PixelPaddingRangeLimit"), stored.dtype)
    low, high = sorted((value, value if limit is None else limit))
    mask = (stored >= low) & (stored <= high)
    if any(_TISSUE_HU[0] <= end * slope + intercept <= _TISSUE_HU[1] for end in (low, high)):
        return _from_border(mask)
    return mask


def _stored_int(value: Any, dtype: np.dtype[Any]) -> int | None:
    """Padding is written US or SS whatever the pixels are: the same bits, read as the pixels are."""
    try:
        bits = 8 * dtype.itemsize
        whole = int(value) % 2**bits
    except (TypeError, ValueError):
        return None
    return whole - 2**bits if dtype.kind == "i" and whole >= 2 ** (bits - 1) else whole


def _from_border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The part of a mask that a straight line from some border reaches without leaving it."""
    reach = np.logical_and.accumulate
    return (
        reach(mask, axis=0)
        | reach(mask, axis=1)
        | reach(mask[::-1], axis=0)[::-1]
        | reach(mask[:, ::-1], axis=1)[:, ::-1]
    )
