"""Which model serves an image, or the reason why none does: a declarative table. Pure.

What is *excluded* was never meant for reading as a slice; what is *out of scope* is an honest image that no model
serves; what *fails* is in scope and lacks what the model needs (contracts/reasons.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from contracts.errors import NotAnalysable
from contracts.findings import FARTHEST_MM, THICKEST_MM
from contracts.reasons import Reason
from contracts.tensors import BRAIN_MASK, HEAD_CT_LESION, LARGEST_LOSSY_RATIO, ModelSpec
from worker.scoring.body_part import Said, said
from worker.scoring.content import SURELY, head_likeness, shows_nothing
from worker.scoring.facts import FrameFacts, InstanceFacts, Vector
from worker.scoring.hounsfield import Hounsfield

_SECONDARY_CAPTURE = {
    str(uid)
    for uid in (
        SecondaryCaptureImageStorage,
        MultiFrameSingleBitSecondaryCaptureImageStorage,
        MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
        MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
        MultiFrameTrueColorSecondaryCaptureImageStorage,
    )
}
_LOCALIZER_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW"}
_REFORMAT_WORDS = {
    "MPR",
    "REFORMATTED",
    "PROJECTION IMAGE",
    "MIP",
    "MAX_IP",
    "MIN_IP",
    "MINIP",
    "VOLUME_RENDER",
    "PERFUSION",
}
_MIXED = "MIXED"  # an enhanced object's frames differ: each says for itself (PS3.3 C.8.16.1)


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Within both bounds; never true for NaN."""
        return self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table: what a model serves. Lengths in mm; ``tilt_degrees`` from the model's own plane.

    ``organ`` tells what the image must hold: asked where ``surely_right`` is not sure, and where something was found.
    """

    model: ModelSpec
    organ: ModelSpec
    modality: str
    sop_class_uids: frozenset[str]
    body_part: Said
    looks_right: Callable[[Hounsfield, tuple[float, float]], bool]
    surely_right: Callable[[Hounsfield, tuple[float, float]], bool]
    normal: Vector
    orientation: str
    tilt_degrees: float
    spacing_mm: Range
    field_of_view_mm: Range
    thickness_mm: Range
    matrix: Range


def _looks_like_a_head(hu: Hounsfield, spacing_mm: tuple[float, float]) -> bool:
    return head_likeness(hu, spacing_mm).is_head()


def _surely_a_head(hu: Hounsfield, spacing_mm: tuple[float, float]) -> bool:
    return head_likeness(hu, spacing_mm).is_head(SURELY)


HEAD_CT = Route(
    model=HEAD_CT_LESION,
    organ=BRAIN_MASK,
    modality="CT",
    sop_class_uids=frozenset(map(str, (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage))),
    body_part=Said.HEAD,
    looks_right=_looks_like_a_head,
    surely_right=_surely_a_head,
    normal=(0.0, 0.0, 1.0),
    orientation="axial",
    tilt_degrees=35.0,  # gantries tilt to 30° to spare the eyes
    spacing_mm=Range(0.2, 1.2),
    field_of_view_mm=Range(120.0, 360.0),  # smaller cuts the head, larger is a trunk's
    thickness_mm=Range(0.3, 12.0),
    matrix=Range(128, 1024),
)
ROUTES: tuple[Route, ...] = (HEAD_CT,)

# What no scanner measures is no geometry: a damaged or hostile value, not an image that another model may serve.
PLACES_MM = Range(-FARTHEST_MM, FARTHEST_MM)  # what an event can tell
SPACINGS_MM = Range(0.001, 100.0)  # from a micro-CT's pixels to some that a body has a dozen of
THICKNESSES_MM = Range(0.001, THICKEST_MM)  # from those pixels again to what an event can tell


@dataclass(frozen=True, slots=True)
class Way:
    """Where an instance goes. ``by_content``: no tag names a body part, so the pixels must look like one."""

    route: Route
    by_content: bool


def way_of(facts: InstanceFacts, routes: tuple[Route, ...] = ROUTES) -> Way:
    """The instance's way. Raises NotAnalysable with the reason of the first check that it does not pass."""
    for reason, applies in _REFUSALS:
        if applies(facts, routes):
            raise NotAnalysable(reason)
    named = said(facts.body_part, facts.texts)
    for route in _serving(facts, routes):
        if named in (route.body_part, Said.UNCLEAR):
            return Way(route, by_content=named is Said.UNCLEAR)
    raise NotAnalysable(Reason.BODY_PART_OUT_OF_SCOPE)


def check_frame(facts: FrameFacts, instance: InstanceFacts, route: Route) -> None:
    """Raises NotAnalysable for a frame that is no slice, lacks geometry or units, or is outside what is served."""
    for reason, applies in _FRAME_REFUSALS:
        if applies(facts, instance, route):
            raise NotAnalysable(reason)


def check_content(hu: Hounsfield, facts: FrameFacts, way: Way) -> None:
    """Raises NotAnalysable (CONTENT_OUT_OF_SCOPE) where the pixels show nothing, whatever the tags say, and where no
    tag names a body part and the pixels name another.
    """
    if shows_nothing(hu):
        raise NotAnalysable(Reason.CONTENT_OUT_OF_SCOPE)
    if way.by_content and facts.spacing_mm and not way.route.looks_right(hu, facts.spacing_mm):
        raise NotAnalysable(Reason.CONTENT_OUT_OF_SCOPE)


def is_localizer(image_type: tuple[str, ...]) -> bool:
    """By value 3 or any later one (PS3.3 C.8.2.1.1.1)."""
    return bool(_LOCALIZER_WORDS.intersection(image_type))


def is_derived(image_type: tuple[str, ...], *, lossy: bool = False) -> bool:
    r"""Computed from other slices. A slice that only went through lossy compression is still that slice.

    Lossy compression makes a slice DERIVED\PRIMARY (PS3.3 C.7.6.1.1.2, C.7.6.1.1.5), as do converters that leave
    value 3 at AXIAL; reformats are SECONDARY or say so in a later value.
    """
    if _REFORMAT_WORDS.intersection(image_type) or "SECONDARY" in image_type[1:2]:
        return True
    return "DERIVED" in image_type[:1] and not (lossy or "AXIAL" in image_type)


def _serving(facts: InstanceFacts, routes: tuple[Route, ...]) -> list[Route]:
    return [r for r in routes if r.modality == facts.modality and facts.sop_class_uid in r.sop_class_uids]


# In this order: a secondary capture of a CT is a secondary capture before it is of a body part.
_REFUSALS: tuple[tuple[Reason, Callable[[InstanceFacts, tuple[Route, ...]], bool]], ...] = (
    (Reason.NOT_AN_IMAGE, lambda facts, _: not facts.has_pixels),
    (Reason.SECONDARY_CAPTURE, lambda facts, _: facts.sop_class_uid in _SECONDARY_CAPTURE),
    (Reason.MODALITY_OUT_OF_SCOPE, lambda facts, routes: not _serving(facts, routes)),
    (Reason.LOCALIZER, lambda facts, _: is_localizer(facts.image_type)),
    (
        Reason.DERIVED,
        lambda facts, _: _MIXED not in facts.image_type and is_derived(facts.image_type, lossy=facts.lossy),
    ),
    (Reason.DERIVED, lambda facts, _: facts.samples != 1),  # a colour overlay on CT is a picture of a result
)


def _geometry_missing(facts: FrameFacts) -> bool:
    """Absent, or a number that is no place or length of anything scanned. NaN is in no ``Range``."""
    if facts.spacing_mm is None or facts.position_mm is None or facts.corner_mm is None:
        return True
    places_mm = (*facts.corner_mm, facts.position_mm)
    sane = all(place in PLACES_MM for place in places_mm) and all(s in SPACINGS_MM for s in facts.spacing_mm)
    return not (sane and (facts.thickness_mm or 0.0) in THICKNESSES_MM)


def _units_unknown(facts: FrameFacts) -> bool:
    return not facts.slope or facts.slope <= 0.0 or facts.intercept is None or facts.units not in ("", "HU")


def _tilted(facts: FrameFacts, route: Route) -> bool:
    cosine = abs(sum(a * b for a, b in zip(facts.normal or (0.0, 0.0, 0.0), route.normal, strict=True)))
    return cosine < math.cos(math.radians(route.tilt_degrees))


def _spacing_unserved(facts: FrameFacts, instance: InstanceFacts, route: Route) -> bool:
    spacing = facts.spacing_mm or (0.0, 0.0)
    views = (spacing[0] * instance.rows, spacing[1] * instance.columns)
    return not (all(s in route.spacing_mm for s in spacing) and all(v in route.field_of_view_mm for v in views))


def _matrix_unserved(instance: InstanceFacts, route: Route) -> bool:
    return not (instance.rows in route.matrix and instance.columns in route.matrix)


_FRAME_REFUSALS: tuple[tuple[Reason, Callable[[FrameFacts, InstanceFacts, Route], bool]], ...] = (
    (Reason.LOCALIZER, lambda frame, _, __: is_localizer(frame.image_type)),
    (Reason.DERIVED, lambda frame, instance, _: is_derived(frame.image_type, lossy=instance.lossy)),
    (Reason.GEOMETRY_MISSING, lambda frame, _, __: _geometry_missing(frame)),
    (Reason.ORIENTATION_OUT_OF_SCOPE, lambda frame, _, route: _tilted(frame, route)),
    (Reason.MATRIX_OUT_OF_SCOPE, lambda _, instance, route: _matrix_unserved(instance, route)),
    (Reason.SPACING_OUT_OF_SCOPE, _spacing_unserved),
    (Reason.THICKNESS_OUT_OF_SCOPE, lambda frame, _, route: (frame.thickness_mm or 0.0) not in route.thickness_mm),
    (Reason.UNITS_UNKNOWN, lambda frame, _, __: _units_unknown(frame)),
    (Reason.COMPRESSED_TOO_FAR, lambda _, instance, __: instance.lossy_ratio > LARGEST_LOSSY_RATIO),
)
