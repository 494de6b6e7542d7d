"""What a patient lies on: head holders and tables of several makes. The same in every slice of a series."""

from __future__ import annotations

import numpy as np

from training.phantom.paint import blend, filled
from training.phantom.plan import Couch
from training.phantom.space import Field


def paint_couch(couch: Couch, rows_mm: Field, columns_mm: Field, picture: Field) -> None:
    """Into the air of `picture`, whose samples lie at rows_mm (to the back) and columns_mm of the field's centre."""
    free = picture < -300
    radius = np.hypot(columns_mm, (rows_mm + 5) / couch.oval)
    behind = rows_mm > couch.from_row_mm
    shell = filled(np.abs(radius - couch.radius_mm) - couch.thick_mm / 2) * behind
    foam = filled(np.abs(radius - couch.radius_mm + couch.foam_mm / 2) - couch.foam_mm / 2) * behind
    blend(picture, foam * free * (couch.foam_mm > 0), couch.foam_hu)
    blend(picture, shell * free, couch.hu)
    if couch.table_row_mm is not None:
        top = np.abs(rows_mm - couch.table_row_mm - 0.0006 * columns_mm**2)
        blend(picture, filled(np.asarray(top - 1.2, np.float32)) * free, couch.hu * 0.5)
