"""One compressed frame → stored values. Native libraries do it, which may crash, hang or eat memory. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from contracts.errors import NotAnalysable
from contracts.reasons import Reason

Pixels = NDArray[Any]


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """One frame's codestream and what pydicom's decoders must know of it (``pydicom.pixels`` decoder options)."""

    transfer_syntax_uid: str
    options: Mapping[str, str | int]
    codestream: bytes

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that it must decode to; zero where that is not said."""
        rows, columns = self.options.get("rows"), self.options.get("columns")
        return (rows if isinstance(rows, int) else 0, columns if isinstance(columns, int) else 0)


DecodeFrame = Callable[[EncodedFrame], Pixels]
"""Gives (rows, columns) of whole numbers. Raises NotAnalysable: PIXELS_UNDECODABLE, PIXELS_OVER_BUDGET."""

Decoding = Callable[[str], DecodeFrame]
"""Called once for each instance, with its SeriesInstanceUID: what it returns may bound the time of all its frames."""


def decoded(frame: EncodedFrame) -> Pixels:
    """Decodes here and now, without any protection."""
    try:
        decoder = get_decoder(UID(frame.transfer_syntax_uid))
        options: dict[str, Any] = {**frame.options, "number_of_frames": 1}
        encapsulated = encapsulate([frame.codestream], has_bot=False)
        values, _ = next(iter(decoder.iter_array(encapsulated, raw=True, **options)))
    except MemoryError as problem:
        raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, "the decoder ran out of memory") from problem
    except Exception as problem:  # decoders are four libraries, most of them native: they raise anything
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, type(problem).__name__) from problem
    return checked(values, frame)


def checked(values: Pixels, frame: EncodedFrame) -> Pixels:
    """The values, if they are what was announced. Raises NotAnalysable (PIXELS_UNDECODABLE)."""
    if values.shape != frame.shape or not np.issubdtype(values.dtype, np.integer):
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"decoded to {values.shape} of {values.dtype}")
    return values
