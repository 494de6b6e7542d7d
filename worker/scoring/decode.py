"""Part 10 bytes → stored values of each frame with their geometry, one at a time, within budgets. Pure.

What is compressed is handed to ``DecodeFrame``, frame by frame, after its size was checked; uncompressed pixels are
views of bytes that are here already.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pydicom import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import as_pixel_options, get_decoder
from pydicom.uid import (
    HTJ2K,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    RLELossless,
)

from contracts.errors import NotAnalysable, PeerError
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from worker.scoring.codestream import Shape, shape_of
from worker.scoring.facts import FrameFacts, InstanceFacts, frame_facts, instance_facts, value_of
from worker.scoring.frame import DecodeFrame, EncodedFrame, Pixels, decoded
from worker.scoring.part10 import parse

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
_ITEM = struct.pack("<HH", 0xFFFE, 0xE000)  # fragments are items, little endian always (PS3.5 A.4)


@dataclass(frozen=True, slots=True)
class Budget:
    """Largest decoded instance and largest decoded frame, in bytes: compared before anything is decoded.

    ``limits``: what the doors take, frames among it; a record may have come another way.
    """

    instance_bytes: int
    frame_bytes: int
    limits: LimitSettings = field(default_factory=LimitSettings)


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
    data = parse(payload, budget.limits)
    try:
        facts = instance_facts(data)
        named = data.file_meta.get("TransferSyntaxUID") or transfer_syntax_uid
    except Exception as problem:  # pydicom converts values when they are first read
        raise NotAnalysable(Reason.RECORD_UNREADABLE, type(problem).__name__) from problem
    if facts.frames > budget.limits.frames:
        raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, f"{facts.frames} frames")
    return Instance(data, facts, UID(str(named)))


def frames_of(instance: Instance, budget: Budget, decode: DecodeFrame = decoded) -> Iterator[Pixels]:
    """Each frame's stored values, (rows, columns), in order; one in memory at a time.

    Raises NotAnalysable: UNSUPPORTED_TRANSFER_SYNTAX, PIXELS_OVER_BUDGET (before decoding), PIXELS_UNDECODABLE (also
    when there are fewer or smaller frames than announced). Passes on the PeerError of ``decode``.
    """
    _within(instance.facts, _stored_bytes(instance.data), budget)
    decoder = _decoder(instance.transfer_syntax)
    encoded = instance.transfer_syntax.is_encapsulated
    frames = _compressed(instance, budget, decode) if encoded else _native(instance, decoder)
    count = 0
    try:
        for values in frames:
            if count == instance.facts.frames:
                break
            count += 1
            yield _two_dimensional(values, instance.facts)
    except (NotAnalysable, PeerError):  # a decoder that cannot be had is not the image's fault
        raise
    except Exception as problem:  # pydicom raises whatever it trips over
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, type(problem).__name__) from problem
    if count != instance.facts.frames:
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"{count} of {instance.facts.frames} frames")


def _native(instance: Instance, decoder: Any) -> Iterator[Pixels]:
    """Validation compares the length of the pixel data with rows × columns × frames × samples × bits."""
    return (values for values, _ in decoder.iter_array(instance.data, raw=True))


def _compressed(instance: Instance, budget: Budget, decode: DecodeFrame) -> Iterator[Pixels]:
    """Nothing is decoded before every codestream was looked at."""
    shape = _checked_codestreams(instance, budget)
    options = _options(instance, shape)
    for codestream in _codestreams(instance, budget):
        yield decode(EncodedFrame(str(instance.transfer_syntax), options, codestream))


def _stored_bytes(data: Dataset) -> int:
    """Bytes of one stored sample; the largest there is where it is not said."""
    allocated = value_of(data, "BitsAllocated")
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


def _checked_codestreams(instance: Instance, budget: Budget) -> Shape | None:
    """The first codestream's shape. A codestream of another size than announced is never given to a decoder."""
    facts, first = instance.facts, None
    for frame in _codestreams(instance, budget):
        shape = shape_of(frame)
        if shape and (shape.rows, shape.columns, shape.components) != (facts.rows, facts.columns, facts.samples):
            raise NotAnalysable(Reason.PIXELS_UNDECODABLE, "the codestream has another size than the data set")
        first = first or shape
    return first


def _codestreams(instance: Instance, budget: Budget) -> Iterator[bytes]:
    pixels = instance.data.PixelData
    _count_fragments(pixels, budget.limits.elements)
    offsets = as_pixel_options(instance.data).get("extended_offsets")
    try:
        yield from generate_frames(pixels, number_of_frames=instance.facts.frames, extended_offsets=offsets)
    except Exception as problem:  # damaged encapsulation raises what struct and pydicom raise
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, type(problem).__name__) from problem


def _count_fragments(pixels: bytes, most: int) -> None:
    """Millions of empty fragments would take pydicom minutes."""
    at = 0
    for _ in range(most):
        if pixels[at : at + 4] != _ITEM or at + 8 > len(pixels):
            return
        at += 8 + struct.unpack_from("<L", pixels, at + 4)[0]
    raise NotAnalysable(Reason.PIXELS_OVER_BUDGET, "too many fragments")


def _options(instance: Instance, shape: Shape | None) -> dict[str, str | int]:
    """What the decoder must know of a frame, and which library decodes.

    A JPEG 2000 codestream that says *signed* is believed against the PixelRepresentation. The other way round (a signed
    data set around an unsigned codestream) pydicom already moves the sign bit.
    """
    told = as_pixel_options(instance.data)
    options = {name: value for name, value in told.items() if isinstance(value, str | int)}
    options["decoding_plugin"] = _PLUGINS.get(instance.transfer_syntax, "")
    if instance.transfer_syntax in _SIGNED_SYNTAXES and shape is not None and shape.signed:
        options["pixel_representation"] = 1
    return options


def _two_dimensional(values: Pixels, facts: InstanceFacts) -> Pixels:
    if values.shape != (facts.rows, facts.columns):
        raise NotAnalysable(Reason.PIXELS_UNDECODABLE, f"decoded to {values.shape}")
    return values
