"""Part 10 bytes → frames of Hounsfield units with their geometry, one at a time, within a memory budget. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from contracts.tensors import HU_HIGH, HU_LOW
from worker.scoring.codestream import Shape, shape_of
from worker.scoring.facts import FrameFacts, InstanceFacts, frame_facts, instance_facts
from worker.scoring.part10 import parse

Pixels = NDArray[Any]
Hounsfield = NDArray[np.float16]

_SIGNED_SYNTAXES = (
    *JPEG2000TransferSyntaxes,
    HTJ2K,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
)  # their codestreams carry a sign of their own

# GDCM comes first in pydicom's order, but is slower here and hands out read-only arrays, whose sign bit pydicom then
# fails to move; each of these is the library written for its format.
_PLUGINS: dict[str, str] = {
    **dict.fromkeys((*_SIGNED_SYNTAXES, RLELossless), "pylibjpeg"),
    **dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls"),
}

_TISSUE_HU = (-200.0, 200.0)  # padding inside this range could be anatomy: only where it touches the border
# FP16 of every whole HU: a look-up is several times faster than a conversion.
_FP16_OF_HU: Hounsfield = np.arange(HU_LOW, HU_HIGH + 1, dtype=np.float32).astype(np.float16)


@dataclass(frozen=True, slots=True)
class Budget:
    """Largest decoded instance and largest decoded frame, in bytes; compared before anything is decoded."""

    instance_bytes: int
    frame_bytes: int


@dataclass(frozen=True, slots=True, eq=False)
class Instance:
    """One SOP instance, pixel data still encoded."""

    data: Dataset
    facts: InstanceFacts
    transfer_syntax: UID

    def frame_facts(self, number: int) -> FrameFacts:
        """Geometry and units of frame ``number`` (from 0)."""
        return frame_facts(self.data, number)


def read(payload: bytes, transfer_syntax_uid: str, budget: Budget) -> Instance:
    """Opens an instance. Raises NotAnalysable (RECORD_UNREADABLE, PIXELS_OVER_BUDGET).

    ``transfer_syntax_uid`` is the record header's, used where the File Meta group lacks one.
    """
    data = parse(payload, budget.instance_bytes)
    try:
        facts = instance_facts(data)
        named = data.file_meta.get("TransferSyntaxUID") or transfer_syntax_uid
    except Exception as problem:  # pydicom converts values when they are first read
        raise NotAnalysable(Reason.RECORD_UNREADABLE, type(problem).__name__) from problem
    return Instance(data, facts, UID(str(named)))


def frames_of(instance: Instance, budget: Budget) -> Iterator[Pixels]:
    """Each frame's stored values, (rows, columns), in order; one in memory at a time.

    Raises NotAnalysable: UNSUPPORTED_TRANSFER_SYNTAX, PIXELS_OVER_BUDGET (before decoding), PIXELS_UNDECODABLE (also
    when there are fewer or smaller frames than announced).
    """
    _within(instance.facts, _stored_bytes(instance.data), budget)
    decoder = _decoder(instance.transfer_syntax)
    shape = _checked_codestreams(instance)
    count = 0
    try:
        # Validation compares the length of native pixel data with rows × columns × frames × samples × bits.
        for values, _ in decoder.iter_array(instance.data, raw=True, **_corrections(instance, shape)):
            if count == instance.facts.frames:
                break
            count += 1
            yield _two_dimensional(values, instance.facts)
    except NotAnalysable:
        raise
    except Exception as problem:  # decoders are four libraries, two of them native: they raise anything
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, type(problem).__name__) from problem
    if count != instance.facts.frames:
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"{count} of {instance.facts.frames} frames")


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
    values = stored.astype(np.float32) * np.float32(slope) + np.float32(intercept)
    return np.clip(values, HU_LOW, HU_HIGH, out=values).astype(np.float16)


def _padding(stored: Pixels, data: Dataset, slope: float, intercept: float) -> NDArray[np.bool_] | None:
    """Which pixels are padding, or None. The limit may stand on either side of the value (PS3.3 C.7.5.1.1.2)."""
    value = _stored_int(data.get("PixelPaddingValue"), stored.dtype)
    if value is None:
        return None
    limit = _stored_int(data.get("PixelPaddingRangeLimit"), stored.dtype)
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


def _stored_bytes(data: Dataset) -> int:
    """Bytes of one stored sample; the largest there is where it is not said."""
    allocated = data.get("BitsAllocated")
    return math.ceil(allocated / 8) if isinstance(allocated, int) and 0 < allocated <= 64 else 8  # noqa: PLR2004 (PS3.5 8.1.1)


def _within(facts: InstanceFacts, sample_bytes: int, budget: Budget) -> None:
    frame_bytes = facts.rows * facts.columns * facts.samples * sample_bytes
    if frame_bytes > budget.frame_bytes or frame_bytes * facts.frames > budget.instance_bytes:
        raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, f"{facts.frames} frames of {frame_bytes} bytes")


def _decoder(transfer_syntax: UID) -> Any:
    try:
        decoder = get_decoder(transfer_syntax)
    except NotImplementedError as problem:
        raise NotAnalysable(Reason.UNSUPPORTED_TRANSFER_SYNTAX, str(transfer_syntax)) from problem
    if not decoder.is_available:
        raise NotAnalysable(Reason.UNSUPPORTED_TRANSFER_SYNTAX, str(transfer_syntax))
    return decoder


def _checked_codestreams(instance: Instance) -> Shape | None:
    """The first codestream's shape. A codestream of another size than announced is never given to a decoder."""
    facts, first = instance.facts, None
    for frame in _encoded_frames(instance):
        shape = shape_of(frame)
        if shape and (shape.rows, shape.columns, shape.components) != (facts.rows, facts.columns, facts.samples):
            raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "the codestream has another size than the data set")
        first = first or shape
    return first


def _encoded_frames(instance: Instance) -> Iterator[bytes]:
    if not instance.transfer_syntax.is_encapsulated:
        return
    try:
        yield from generate_frames(instance.data.PixelData, number_of_frames=instance.facts.frames)
    except Exception as problem:  # damaged encapsulation raises what struct and pydicom raise
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, type(problem).__name__) from problem


def _corrections(instance: Instance, shape: Shape | None) -> dict[str, Any]:
    """Which library decodes. A JPEG 2000 codestream that says *signed* is believed against the PixelRepresentation.

    The other way round (a signed data set around an unsigned codestream) pydicom already moves the sign bit.
    """
    options: dict[str, Any] = {"decoding_plugin": _PLUGINS.get(instance.transfer_syntax, "")}
    if instance.transfer_syntax in _SIGNED_SYNTAXES and shape is not None and shape.signed:
        options["pixel_representation"] = 1
    return options


def _two_dimensional(values: Pixels, facts: InstanceFacts) -> Pixels:
    if values.shape != (facts.rows, facts.columns):
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"decoded to {values.shape}")
    return values
