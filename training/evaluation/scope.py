"""What the service would not look at: its limits on geometry, told as abstentions. Pure.

The numbers are worker.scoring's route of head CT; a test holds them together (rooms are not imported here).
"""

from __future__ import annotations

from collections.abc import Sequence

from training.data.study import Study

SPACING_MM = (0.2, 1.2)
FIELD_OF_VIEW_MM = (120.0, 360.0)
THICKNESS_MM = (0.3, 12.0)
MATRIX = (128, 1024)


def refusal(study: Study) -> str | None:
    """Why the service would not analyse this study, or None."""
    thickness_mm = study.facts.slice_mm or study.spacing_mm[0]
    return plane_refusal(study.hu.shape[1:], study.spacing_mm[1:]) or _outside(
        ([thickness_mm], THICKNESS_MM, "slice thickness")
    )


def plane_refusal(sizes: Sequence[int], pixel_mm: Sequence[float]) -> str | None:
    """The same of one slice: rows and columns, and their spacing."""
    views_mm = [size * mm for size, mm in zip(sizes, pixel_mm, strict=True)]
    return _outside(
        (sizes, MATRIX, "matrix"),
        (pixel_mm, SPACING_MM, "pixel spacing"),
        (views_mm, FIELD_OF_VIEW_MM, "field of view"),
    )


def _outside(*checks: tuple[Sequence[float], tuple[float, float], str]) -> str | None:
    for values, (low, high), name in checks:
        if not all(low <= value <= high for value in values):
            told = " × ".join(f"{value:g}" for value in values)
            return f"{name} {told} is out of scope ({low:g} to {high:g})"
    return None
