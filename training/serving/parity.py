"""How far engines that run one network lie apart: the largest difference of any number of any output. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from training.serving.session_in import Feed

Answers: TypeAlias = Mapping[str, NDArray[np.float32]]
Engine: TypeAlias = Callable[[Feed], Answers]
# Probabilities. FP32 on either side: rounding of sums in another order. A TensorRT plan: eleven bits (FP16, TF32).
TOLERANCE, TOLERANCE_FP16 = 1e-4, 2e-2


@dataclass(frozen=True)
class Parity:
    """Largest absolute difference, by output, over all feeds."""

    left: str
    right: str
    feeds: int
    largest: Mapping[str, float]

    @property
    def worst(self) -> float:
        """Of all outputs."""
        return max(self.largest.values())

    def within(self, tolerance: float = TOLERANCE) -> bool:
        """NaN is never within."""
        return self.worst <= tolerance

    def __str__(self) -> str:
        """`PyTorch ↔ ONNX Runtime on 4 slices: largest difference 1.2e-06 (MASK)`."""
        name = max(self.largest, key=lambda key: self.largest[key])
        return f"{self.left} ↔ {self.right} on {self.feeds} slices: largest difference {self.worst:.1e} ({name})"


def compare(left: tuple[str, Engine], right: tuple[str, Engine], feeds: list[dict[str, NDArray[Any]]]) -> Parity:
    """Ask both engines all feeds. Outputs of another shape differ without bound."""
    largest: dict[str, float] = {}
    for feed in feeds:
        one, other = left[1](feed), right[1](feed)
        for name, value in one.items():
            largest[name] = max(largest.get(name, 0.0), _difference(value, other.get(name)))
    return Parity(left[0], right[0], len(feeds), largest)


def _difference(one: NDArray[Any], other: NDArray[Any] | None) -> float:
    if other is None or one.shape != other.shape:
        return float("inf")
    away = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float("inf") if np.isnan(away).any() else float(away.max(initial=0.0))
