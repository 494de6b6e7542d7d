"""Order, choice of series and units, from headers and numbers alone."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_training import data_cases as cases
from training.data.geometry import Header, chosen_series, stacked
from training.data.hounsfield import unwrapped, why_not_hu
from training.data.study import BadStudy, Doubt, Facts, Fault, NotHounsfield

ACROSS, BACK = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


def header(nth: int = 0, **other: object) -> Header:
    """An axial slice of 5 mm."""
    plain: dict[str, object] = {
        "file": f"{nth:03d}.dcm",
        "study_uid": "1",
        "series_uid": "1.1",
        "patient": "p",
        "instance": nth,
        "modality": "CT",
        "image_type": frozenset({"ORIGINAL", "PRIMARY", "AXIAL"}),
        "frames": 1,
        "matrix": (96, 96),
        "pixel_mm": (0.5, 0.5),
        "thickness_mm": 5.0,
        "row": ACROSS,
        "column": BACK,
        "corner_mm": (0.0, 0.0, 5.0 * nth),
        "words": "",
        "facts": Facts(),
    }
    return Header(**{**plain, **other})  # type: ignore[arg-type]  # a test names fields at run time


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.floats(0.3, 10), st.floats(-30, 30), st.randoms(use_true_random=False))
def test_order_and_spacing_do_not_depend_on_the_files_order(
    count: int, gap_mm: float, tilt_deg: float, dice: random.Random
) -> None:
    """Whatever the tilt, slices come from the feet upwards and their distance is measured across them."""
    cos, sin = np.cos(np.radians(tilt_deg)), np.sin(np.radians(tilt_deg))
    made = [
        header(nth, column=(0.0, cos, -sin), corner_mm=(0.0, gap_mm * nth * sin, gap_mm * nth * cos))
        for nth in range(count)
    ]
    mixed = dice.sample(made, count)
    stack = stacked(mixed)
    assert [one.file for one in stack.headers] == [one.file for one in made]
    assert stack.spacing_mm[0] == pytest.approx(gap_mm)
    assert stack.doubts == ()


def test_a_tilted_table_moves_slices_and_not_their_distance() -> None:
    """With a gantry tilted by 18.5° slices 4.22 mm apart on the table are 4 mm apart."""
    cos, sin = np.cos(np.radians(18.5)), np.sin(np.radians(18.5))
    made = [header(nth, column=(0.0, cos, -sin), corner_mm=(0.0, 0.0, 4.0 / cos * nth)) for nth in range(5)]
    assert stacked(made).spacing_mm[0] == pytest.approx(4.0)


def test_two_thicknesses_in_one_series_are_told_with_the_file_where_they_meet() -> None:
    """4 mm below, 7 mm above, as old protocols have it: read, and told."""
    places = [*(4.0 * n for n in range(6)), *(20.0 + 7.0 * n for n in range(1, 5))]
    made = [header(nth, corner_mm=(0.0, 0.0, place)) for nth, place in enumerate(places)]
    (doubt,) = stacked(made).doubts
    assert (doubt.fault, doubt.file, doubt.mild) == (Fault.MIXED_SPACING, "006.dcm", False)


def test_a_single_slice_goes_by_its_thickness() -> None:
    """Without a neighbour and without a thickness nothing tells what it stands for."""
    assert stacked([header()]).spacing_mm == (5.0, 0.5, 0.5)
    with pytest.raises(BadStudy, match="only slice"):
        stacked([header(thickness_mm=None)])


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"words": "plain thin", "thickness_mm": 0.6}, {"words": "post contrast"}),
        ({"words": "without contrast"}, {"words": "head c+"}),
        ({"words": "posterior fossa", "thickness_mm": 3.0}, {"words": "bone window"}),
        ({"facts": Facts(kernel="H30s"), "thickness_mm": 1.0}, {"facts": Facts(kernel="H60s")}),
        ({"facts": Facts(kernel="Hr38"), "thickness_mm": 1.0}, {"facts": Facts(kernel="Hr68")}),
        ({"facts": Facts(kernel="STANDARD"), "thickness_mm": 1.0}, {"facts": Facts(kernel="BONEPLUS")}),
        ({"thickness_mm": 5.0}, {"thickness_mm": 0.6}),
    ],
)
def test_the_series_is_chosen_by_contrast_kernel_and_thickness(
    better: dict[str, object], worse: dict[str, object]
) -> None:
    """In this order, whatever the order of the files."""
    good = [header(nth, series_uid="1.2", **better) for nth in range(3)]
    bad = [header(nth, series_uid="1.1", **worse) for nth in range(3)]
    assert chosen_series([*bad, *good], "here") == good
    assert chosen_series([*good, *bad], "here") == good


def test_localisers_and_captures_are_no_slices() -> None:
    """A scout of the same study is not stacked among its slices."""
    scout = header(9, image_type=frozenset({"ORIGINAL", "PRIMARY", "LOCALIZER"}))
    made = [header(nth) for nth in range(3)]
    assert chosen_series([scout, *made], "here") == made
    with pytest.raises(BadStudy, match="here: holds no CT slice"):
        chosen_series([scout], "here")


def test_units_are_recognised_by_air_bone_and_soft_tissue() -> None:
    """A head passes; windowed, shifted and 8-bit pictures do not, each with its reason."""
    hu = cases.head(1)
    assert why_not_hu(hu) is None
    for wrong, told in (
        (hu.clip(-15, 100), "no air"),
        (hu + 1024, "no air"),
        (hu.clip(-1024, 200), "no bone"),
        (np.zeros_like(hu), "all values are 0"),
        (hu // 50 * 50, "different values"),
        (np.where(hu > -500, hu + 300, hu), "median is 3"),
    ):
        assert told in (why_not_hu(wrong.astype(np.int16)) or "")


@settings(deadline=None)
@given(st.integers(-1000, 3095), st.integers(11, 12))
def test_unwrapping_gives_back_what_was_stored_over_the_top(value: int, bits: int) -> None:
    """Every HU from −1000 up to what the bits hold survives."""
    top = (1 << bits) - 1000 - 1
    kept = min(value, top)
    stored = np.array([kept % (1 << bits)], np.uint16)
    assert unwrapped(stored, bits, -1000)[0] == kept


def test_errors_are_ours_and_tell_the_file_first() -> None:
    """A command ends with this very sentence."""
    bad = NotHounsfield("a.dcm", "is in US")
    assert str(bad) == "a.dcm: is in US"
    assert (bad.file, bad.fault) == ("a.dcm", Fault.NOT_HU)
    assert Doubt(Fault.LEAK, "a", "b").mild is False
