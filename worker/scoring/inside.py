"""What lies inside the skull: whether an image holds brain at all, and which of a finding's samples count. Pure.

The mask is another model's answer (``contracts.tensors.BRAIN_MASK``). It may take away what plainly does not belong to
a head; where it is in doubt, what the main model found stands (docs/decisions/0013-brain-mask.md).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.scoring.measure import Answer

BRAIN_FROM = 0.5  # of a sample: more likely inside than not
HINT_FROM, HINT_MM2 = 0.2, 100.0  # a cm² of what might be brain is brain enough to go on
ROOM_MM = 6.0  # around the mask: its own error, and blood that lifts the scalp side of a thin inner table


@dataclass(frozen=True, slots=True, eq=False)
class Inside:
    """``chance`` (rows, columns) of each sample to lie inside the skull, ``pitch_mm`` a sample, about the patient."""

    chance: NDArray[np.float32]
    pitch_mm: float

    @classmethod
    def told_by(cls, answer: Answer) -> "Inside":
        """From the answer of a mask model, whose only channel is the mask."""
        return cls(answer.segmentation[0], answer.model.grid_pitch_mm)

    @property
    def holds_brain(self) -> bool:
        """False only where hardly a sample might be brain: a wrong no costs a score."""
        return float((self.chance >= HINT_FROM).sum()) * self.pitch_mm**2 >= HINT_MM2

    def on(self, shape: tuple[int, int], pitch_mm: float) -> NDArray[np.bool_]:
        """The mask and the room around it on another grid about the same centre; all of it where no brain is seen.

        A mask without brain beside a finding is a contradiction, and a contradiction takes nothing away.
        """
        mask = self.chance >= BRAIN_FROM
        if not mask.any():
            return np.ones(shape, dtype=bool)
        roomy = _grown(mask, ROOM_MM / self.pitch_mm)
        rows, columns = (
            _nearest(size, pitch_mm, own, self.pitch_mm) for size, own in zip(shape, mask.shape, strict=True)
        )
        found: NDArray[np.bool_] = roomy[np.ix_(rows, columns)]
        return found


def _nearest(size: int, pitch_mm: float, own_size: int, own_pitch_mm: float) -> NDArray[np.intp]:
    """For each sample of one axis the nearest of ours; beyond our edge the last."""
    away_mm = (np.arange(size) - (size - 1) / 2) * pitch_mm
    at = np.rint(away_mm / own_pitch_mm + (own_size - 1) / 2)
    return np.clip(at, 0, own_size - 1).astype(np.intp)


def _grown(mask: NDArray[np.bool_], samples: float) -> NDArray[np.bool_]:
    """Everything within that many samples of the mask, as the crow flies."""
    reach = int(np.ceil(samples))
    wide = np.pad(mask, reach)
    rows, columns = mask.shape
    grown = np.zeros_like(mask)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down**2 + right**2 <= samples**2:
                grown |= wide[reach + down : reach + down + rows, reach + right : reach + right + columns]
    return grown
