"""Are these numbers Hounsfield units? Asked of a whole series, whose every slice has air around the patient. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

AIR_BELOW_HU = -700  # air is −1000, with noise and beam hardening around a table higher
AIR_SHARE = 0.01  # of a head CT at least; a usual field of view holds 30 %
BONE_FROM_HU = 500  # the vault reaches 800 and more in slices of any thickness
CUT_BELOW_HU = 300  # nothing above: windowed for soft tissue
PATIENT_HU = (-200, 1500)  # what is neither air nor padding nor metal
MIDDLE_HU = (-20, 120)  # its median: brain, muscle and skin with the skull mixed in
FEW_VALUES = 256  # 8 bits, or a window of brain: a CT series has more than a thousand different values
SAMPLED = 2_000_000  # values looked at in one series: enough for a share of one percent


def why_not_hu(hu: NDArray[np.int16]) -> str | None:
    """The sentence that says why these (n, H, W) numbers are no HU, or None."""
    values = _sample(hu)
    low, high = int(values.min()), int(values.max())
    if low == high:
        return f"all values are {low}"
    if float((values < AIR_BELOW_HU).mean()) < AIR_SHARE:
        return (
            f"there is no air: the lowest value is {low}, air is -1000 HU (windowed, or without its rescale intercept)"
        )
    if high < CUT_BELOW_HU:
        return f"there is no bone: the highest value is {high} HU (windowed)"
    if len(np.unique(values)) <= FEW_VALUES:
        return f"there are only {len(np.unique(values))} different values (8 bits or a window)"
    return _why_no_patient(values)


def _why_no_patient(values: NDArray[np.int16]) -> str | None:
    inside = values[(values > PATIENT_HU[0]) & (values < PATIENT_HU[1])]
    if not inside.size:
        return "nothing has the density of a patient"
    middle = float(np.median(inside))
    if not MIDDLE_HU[0] <= middle <= MIDDLE_HU[1]:
        return f"the patient's median is {middle:.0f} HU; soft tissue is about 35 (another unit or offset)"
    return None


def bone_is_cut(hu: NDArray[np.int16]) -> bool:
    """Whether a few hundred HU is the top, as in archives that were windowed for the brain and kept as 12 bits."""
    return int(hu.max()) < BONE_FROM_HU


def unwrapped(stored: NDArray[Any], bits: int, air_hu: int) -> NDArray[np.int16]:
    """Signed values that were stored as unsigned numbers of `bits` bits: those below zero came out at the top.

    Some thousand images of RSNA ICH 2019 are so (12 bits, intercept 0, air at 3096): values at or above 2^bits + air
    are negative ones.
    """
    values = stored.astype(np.int32)
    return np.where(values >= (1 << bits) + air_hu, values - (1 << bits), values).astype(np.int16)


def _sample(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    step = max(1, hu.size // SAMPLED)
    return hu.reshape(-1)[:: step | 1]  # an odd step does not fall into the columns' period
