"""Which images a model serves, and the reason where none does: the table, row by row."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.data import get_testdata_file

from contracts.errors import NotAnalysable
from contracts.reasons import Reason
from worker.scoring.body_part import Said, said
from worker.scoring.content import head_likeness
from worker.scoring.decode import Budget, frames_of, read
from worker.scoring.facts import FrameFacts, InstanceFacts, Vector, instance_facts
from worker.scoring.hounsfield import hounsfield
from worker.scoring.routing import check_content, check_frame, way_of

BUDGET = Budget(1 << 30, 64 << 20)
HEAD = InstanceFacts(
    modality="CT",
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    body_part="HEAD",
    texts=(),
    rows=512,
    columns=512,
    frames=1,
    samples=1,
    has_pixels=True,
    lossy=False,
    lossy_ratio=0.0,
)
FRAME = FrameFacts(
    image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
    spacing_mm=(0.45, 0.45),
    thickness_mm=5.0,
    row=(1.0, 0.0, 0.0),
    column=(0.0, 1.0, 0.0),
    corner_mm=(-115.0, -115.0, 40.0),
    slope=1.0,
    intercept=-1024.0,
    units="HU",
)


def refusal(facts: InstanceFacts, frame: FrameFacts = FRAME) -> Reason | None:
    """The reason for which an image is not served."""
    try:
        check_frame(frame, facts, way_of(facts).route)
    except NotAnalysable as problem:
        return problem.reason
    return None


def tilted(degrees: float) -> Vector:
    """The column direction of an axial slice tilted about the left–right axis."""
    return (0.0, float(np.cos(np.radians(degrees))), float(np.sin(np.radians(degrees))))


def test_an_axial_head_ct_is_served() -> None:
    """The row that everything else departs from."""
    assert refusal(HEAD) is None
    assert not way_of(HEAD).by_content


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"has_pixels": False}, Reason.NOT_AN_IMAGE),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, Reason.SECONDARY_CAPTURE),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7.2"}, Reason.SECONDARY_CAPTURE),
        ({"modality": "MR", "sop_class_uid": "1.2.840.10008.5.1.4.1.1.4"}, Reason.MODALITY_OUT_OF_SCOPE),
        ({"modality": ""}, Reason.MODALITY_OUT_OF_SCOPE),
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Reason.LOCALIZER),
        ({"image_type": ("DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE")}, Reason.DERIVED),
        ({"image_type": ("DERIVED", "SECONDARY", "MPR")}, Reason.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")}, Reason.DERIVED),
        ({"image_type": ("DERIVED", "PRIMARY", "MIP"), "lossy": True}, Reason.DERIVED),
        ({"samples": 3}, Reason.DERIVED),
        ({"body_part": "CHEST"}, Reason.BODY_PART_OUT_OF_SCOPE),
        ({"body_part": "", "texts": ("CT ABDOMEN PELVIS",)}, Reason.BODY_PART_OUT_OF_SCOPE),
        ({"rows": 2048, "columns": 2048}, Reason.MATRIX_OUT_OF_SCOPE),
        ({"rows": 150, "columns": 150}, Reason.SPACING_OUT_OF_SCOPE),
        ({"lossy": True, "lossy_ratio": 50.1}, Reason.COMPRESSED_TOO_FAR),
    ],
)
def test_instance_that_is_not_served_has_its_reason(changes: dict[str, object], reason: Reason) -> None:
    """One departure, one reason."""
    assert refusal(replace(HEAD, **changes)) is reason  # type: ignore[arg-type]  # a table of changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_type": ("ORIGINAL", "PRIMARY", "LOCALIZER")}, Reason.LOCALIZER),
        ({"image_type": ("DERIVED", "PRIMARY", "PERFUSION", "RCBF")}, Reason.DERIVED),
        ({"spacing_mm": None}, Reason.GEOMETRY_MISSING),
        ({"row": None}, Reason.GEOMETRY_MISSING),
        ({"column": (0.0, 0.0, 0.0)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": None}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (0.0, 0.0, 1e308)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (0.0, 0.0, -10_000.1)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (float("inf"), 0.0, 0.0)}, Reason.GEOMETRY_MISSING),
        ({"thickness_mm": None}, Reason.GEOMETRY_MISSING),
        ({"thickness_mm": 0.0}, Reason.GEOMETRY_MISSING),
        ({"thickness_mm": 1e308}, Reason.GEOMETRY_MISSING),
        ({"thickness_mm": 1_000.1}, Reason.GEOMETRY_MISSING),
        ({"thickness_mm": 1e-320}, Reason.GEOMETRY_MISSING),
        ({"spacing_mm": (1e308, 0.45)}, Reason.GEOMETRY_MISSING),
        ({"spacing_mm": (0.45, 1e-300)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (1e308, 0.0, 0.0)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (1e308, 1e308, -1e308), "column": tilted(20.0)}, Reason.GEOMETRY_MISSING),
        ({"corner_mm": (0.0, 9_999.0, 9_999.0), "column": tilted(-30.0)}, Reason.GEOMETRY_MISSING),
        ({"column": (0.0, 0.0, -1.0)}, Reason.ORIENTATION_OUT_OF_SCOPE),
        ({"column": tilted(45.0)}, Reason.ORIENTATION_OUT_OF_SCOPE),
        ({"spacing_mm": (0.1, 0.1)}, Reason.SPACING_OUT_OF_SCOPE),
        ({"spacing_mm": (0.9, 0.9)}, Reason.SPACING_OUT_OF_SCOPE),
        ({"thickness_mm": 20.0}, Reason.THICKNESS_OUT_OF_SCOPE),
        ({"slope": None}, Reason.UNITS_UNKNOWN),
        ({"slope": 0.0}, Reason.UNITS_UNKNOWN),
        ({"intercept": None}, Reason.UNITS_UNKNOWN),
        ({"units": "US"}, Reason.UNITS_UNKNOWN),
    ],
)
def test_frame_that_is_not_served_has_its_reason(changes: dict[str, object], reason: Reason) -> None:
    """Geometry and units are each frame's own."""
    assert refusal(HEAD, replace(FRAME, **changes)) is reason  # type: ignore[arg-type]  # a table of changes


@pytest.mark.parametrize("z", [-10_000.0, -3_000.0, 0.0, 9_999.9])
def test_a_slice_may_lie_anywhere_within_ten_metres_of_the_origin(z: float) -> None:
    """Some scanners count from the far end of the table."""
    assert refusal(HEAD, replace(FRAME, corner_mm=(-115.0, -115.0, z))) is None


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=6, max_size=6), st.floats(-35.0, 35.0))
def test_whatever_is_served_has_a_position_and_lengths_that_an_event_can_tell(
    numbers: list[float], degrees: float
) -> None:
    """One slice with a position of 9e307 mm, scored, ended the folding of every study in its partition."""
    x, y, z, row_mm, column_mm, thickness_mm = numbers
    wild = replace(FRAME, corner_mm=(x, y, z), spacing_mm=(row_mm, column_mm), thickness_mm=thickness_mm)
    for frame in (wild, replace(FRAME, corner_mm=(x, y, z), column=tilted(degrees))):
        if refusal(HEAD, frame) is None:
            assert abs(frame.position_mm or 0.0) <= 10_000.0
            assert 0.0 < (frame.thickness_mm or 0.0) <= 1_000.0


@pytest.mark.parametrize("degrees", [-30.0, -22.0, 0.0, 25.0, 180.0])
def test_a_tilted_gantry_is_still_axial(degrees: float) -> None:
    """Gantries tilt to spare the eyes; a flipped slice is axial too."""
    assert refusal(HEAD, replace(FRAME, column=tilted(degrees))) is None


def test_a_slice_that_only_went_through_lossy_compression_is_that_slice() -> None:
    """Compression makes it DERIVED\\PRIMARY, not another image."""  # noqa: D301 (the standard's separator)
    assert refusal(replace(HEAD, image_type=("DERIVED", "PRIMARY", "AXIAL"))) is None
    lossy = ("DERIVED", "PRIMARY", "")
    assert refusal(replace(HEAD, image_type=lossy, lossy=True), replace(FRAME, image_type=lossy)) is None
    assert refusal(replace(HEAD, image_type=lossy)) is Reason.DERIVED


def test_enhanced_object_of_mixed_frames_is_judged_frame_by_frame() -> None:
    """MIXED at the top says nothing about any frame."""
    mixed = replace(
        HEAD, sop_class_uid="1.2.840.10008.5.1.4.1.1.2.1", image_type=("MIXED", "PRIMARY", "MIXED"), frames=2
    )
    assert refusal(mixed) is None
    assert refusal(mixed, replace(FRAME, image_type=("DERIVED", "PRIMARY", "MPR"))) is Reason.DERIVED


@pytest.mark.parametrize(
    ("body_part", "texts", "expected"),
    [
        ("HEAD", (), Said.HEAD),
        ("BRAIN", (), Said.HEAD),
        ("", ("CT HEAD W/O CONTRAST",), Said.HEAD),
        ("", ("", "CCT_NATIV", ""), Said.HEAD),
        ("", ("SCHÄDEL NATIV",), Said.HEAD),
        ("", ("NEURO^STROKE",), Said.HEAD),
        ("CHEST", (), Said.OTHER),
        ("", ("THORAX/ABDOMEN",), Said.OTHER),
        ("", ("HWS",), Said.OTHER),
        ("", (), Said.UNCLEAR),
        ("", ("ROUTINE", "5/5MM PLAIN"), Said.UNCLEAR),
        ("", ("CT HEAD AND NECK",), Said.UNCLEAR),
        ("CHEST", ("CT HEAD",), Said.UNCLEAR),
        ("", ("CCTA CORONARY",), Said.OTHER),
        ("", ("FEMORAL HEAD",), Said.UNCLEAR),
        ("", ("COUNTED", "HANDLED", "LEGACY"), Said.UNCLEAR),
    ],
)
def test_words_name_a_body_part(body_part: str, texts: tuple[str, ...], expected: Said) -> None:
    """HEAD only where a head and nothing else is named; where both or none are, the pixels decide."""
    assert said(body_part, texts) is expected


@given(st.text(), st.lists(st.text(), max_size=4))
def test_any_text_is_answered(body_part: str, texts: list[str]) -> None:
    """Descriptions are whatever a technician typed."""
    assert said(body_part.upper(), [text.upper() for text in texts]) in Said


def hu_of(payload: bytes) -> tuple[NDArray[np.float16], FrameFacts]:
    """First frame and its facts."""
    instance = read(payload, "", BUDGET)
    facts = instance.frame_facts(0)
    return hounsfield(next(frames_of(instance, BUDGET)), facts, instance.data), facts


def test_content_decides_only_where_no_tag_does(head: bytes) -> None:
    """A disc of water passes where it is named a head, and is out of scope where it is not named."""
    hu, facts = hu_of(head)
    water = np.full_like(hu, -1000)
    water[100:400, 100:400] = 0
    check_content(water, facts, way_of(HEAD))
    unnamed = way_of(replace(HEAD, body_part=""))
    check_content(hu, facts, unnamed)
    with pytest.raises(NotAnalysable) as refused:
        check_content(water, facts, unnamed)
    assert refused.value.reason is Reason.CONTENT_OUT_OF_SCOPE


@pytest.mark.parametrize("level_hu", [-1000, 0, 48, 3071])
def test_a_blank_slice_is_not_scored_whatever_it_is_named(head: bytes, level_hu: int) -> None:
    """A failed detector or a lost rescale under the name of a head once ended as not flagged."""
    hu, facts = hu_of(head)
    blank = np.full_like(hu, level_hu)
    blank[::3] += 4  # the noise of an empty room
    with pytest.raises(NotAnalysable) as refused:
        check_content(blank, facts, way_of(HEAD))
    assert refused.value.reason is Reason.CONTENT_OUT_OF_SCOPE


@pytest.mark.parametrize("rows", [slice(None), slice(None, None, -1)])
def test_a_real_head_looks_like_one_however_it_lies(head: bytes, rows: slice) -> None:
    """Upright, upside down, on its side, off centre."""
    hu, facts = hu_of(head)
    assert facts.spacing_mm is not None
    for turned in (hu[rows], hu[rows].T, np.roll(hu, 30, axis=1)):
        assert head_likeness(turned, facts.spacing_mm).is_head()


def disc(radius_mm: float, value: float, hu: NDArray[np.float16], at: tuple[float, float] = (0.0, 0.0)) -> None:
    """Paints a disc into a 512 × 512 image of 0.7 mm."""
    row, column = np.ogrid[:512, :512]
    hu[np.hypot((row - 256) * 0.7 - at[0], (column - 256) * 0.7 - at[1]) <= radius_mm] = value


@pytest.mark.parametrize("kind", ["chest", "water phantom", "thigh", "air", "metal"])
def test_what_is_no_head_does_not_look_like_one(kind: str) -> None:
    """Lungs, no bone, bone in the middle, nothing, everything: none is skull around brain."""
    hu = np.full((512, 512), -1000, dtype=np.float16)
    if kind == "chest":
        disc(150.0, 40.0, hu)
        disc(55.0, -850.0, hu, (0.0, 70.0))
        disc(55.0, -850.0, hu, (0.0, -70.0))
        disc(20.0, 600.0, hu, (100.0, 0.0))
    elif kind == "water phantom":
        disc(90.0, 0.0, hu)
    elif kind == "thigh":
        disc(80.0, 50.0, hu)
        disc(15.0, 1200.0, hu)
    elif kind == "metal":
        hu[:] = 3000
    assert not head_likeness(hu, (0.7, 0.7)).is_head()


def test_lossy_head_that_no_tag_names_is_recognised(sample: Callable[[str], bytes]) -> None:
    """A head CT without any body part tag, after lossy compression."""
    hu, facts = hu_of(sample("693_UNCI.dcm"))
    assert facts.spacing_mm is not None
    assert head_likeness(hu, facts.spacing_mm).is_head()


def test_how_far_an_image_was_compressed_is_read_from_its_tag() -> None:
    """The strongest of several steps counts; nothing told is nothing known (PS3.3 C.7.6.1.1.5.2)."""
    data = dcmread(get_testdata_file("693_J2KI.dcm"))
    assert instance_facts(data).lossy_ratio == pytest.approx(338.69, abs=0.01)
    data.LossyImageCompressionRatio = [5.0, 60.0]
    assert instance_facts(data).lossy_ratio == 60.0
    del data.LossyImageCompressionRatio
    assert instance_facts(data).lossy_ratio == 0.0
