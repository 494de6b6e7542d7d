"""What the brain mask is worth: overlap, what it lets out, and where it sees a brain that is none. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.brain.inside import BRAIN_FROM, HINT_MM2, holds_brain, roomy

SLIVERS = 2.0  # below so many times what the service asks for, a slice with brain may be told either way


@dataclass(frozen=True)
class BrainFigures:
    """Over the slices of heads: mean Dice where there is brain, the share of the inside that the mask with its room
    leaves out (mean and worst slice). Refusals, as the service refuses: of slices with brain that look as if they held
    none, and the reverse.
    """

    slices_with_brain: int
    dice: float
    left_out_mean: float
    left_out_worst: float
    missed: int
    slices_without: int
    seen_where_none_is: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def judged(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], pitch_mm: float) -> BrainFigures:
    """Of (answer, truth) masks on the mask's grid. Slices that hold a sliver of brain are not judged."""
    dices, left, missed, seen, with_brain, without = [], [], 0, 0, 0, 0
    for answer, truth in pairs:
        mask, inside = answer >= BRAIN_FROM, truth > 0.5
        true_mm2 = inside.sum() * pitch_mm**2
        if true_mm2 == 0:
            without += 1
            seen += holds_brain(answer, pitch_mm)
        elif true_mm2 >= SLIVERS * HINT_MM2:
            with_brain += 1
            missed += not holds_brain(answer, pitch_mm)
            dices.append(2 * (mask & inside).sum() / (mask.sum() + inside.sum()))
            left.append((inside & ~roomy(answer, pitch_mm)).sum() / inside.sum())
    return BrainFigures(
        with_brain,
        round(float(np.mean(dices)), 4) if dices else 0.0,
        round(float(np.mean(left)), 5) if left else 0.0,
        round(float(np.max(left, initial=0.0)), 4),
        missed,
        without,
        seen,
    )
