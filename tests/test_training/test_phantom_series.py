"""A phantom study is a function of its seed, real DICOM, and says the truth about itself."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, SegmentationStorage
from typer.testing import CliRunner

from launch.commands import app
from training.data.folder_in import FolderSource
from training.data.study import KINDS, Study
from training.phantom.artefacts import projected_artefacts
from training.phantom.atlas_in import Atlas
from training.phantom.dicom_out import SEG, SHEET, TRUTH, images_of, study_uid, write_study
from training.phantom.lesions import CHANNEL_OF
from training.phantom.realism import SILENT_ML, card_lines, judged, summary
from training.phantom.series import RESCALES, DrawnSeries, Rescale, Wish, draw_series, plan_series

SMALL = Wish(lesion="intraparenchymal", difficulty=(0.0, 0.1), slice_mm=5.0, slices=9, matrix=128, plain=True)
SEED = 71


@pytest.fixture(scope="module")
def drawn(atlas: Atlas) -> DrawnSeries:
    """Nine slices with a plain bleed."""
    return draw_series(plan_series(SEED, SMALL), atlas)


def digest(folder: Path) -> str:
    """Of every name and byte in a folder."""
    told = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        told.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return told.hexdigest()


def run(*arguments: object) -> str:
    """`triage phantom …`; what it prints."""
    result = CliRunner().invoke(app, ["phantom", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.output


def test_two_runs_of_one_seed_write_the_same_bytes_and_a_third_draws_nothing_again(tmp_path: Path) -> None:
    """Seed and options decide every byte, the SEG's and the picture's too; what lies there whole is kept."""
    options = ("--studies", 1, "--slices", 3, "--matrix", 96, "--lesion", "subdural", "--slice-mm", 5, "--seed", 4)
    run(tmp_path / "a", *options)
    run(tmp_path / "b", *options)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*.dcm")}
    assert before
    run(tmp_path / "a", *options)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_command_tells_what_it_made_as_json_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """Standard output is one JSON object whose studies stand in labels.csv; a wrong kind names the right ones."""
    told = json.loads(run(tmp_path, "--studies", 1, "--slices", 2, "--matrix", 64, "--lesion", "none", "--json"))
    (study,) = told["studies"]
    assert study["lesions"] == []
    assert "SYNTHETIC" in told["notice"]
    assert (tmp_path / "labels.csv").read_text("utf-8").splitlines()[1] == f"{study['study_instance_uid']},0"
    wrong = CliRunner().invoke(app, ["phantom", str(tmp_path), "--lesion", "fracture"])
    assert wrong.exit_code == 2
    assert "chronic_subdural" in wrong.output


def test_series_read_back_by_the_folder_loader_is_the_drawn_one(drawn: DrawnSeries, tmp_path: Path) -> None:
    """Rescale, orientation, order and spacing survive: the service's own kind of reader gets the HU that were drawn."""
    write_study(drawn, tmp_path / "ct", tmp_path / "truth")
    labels = tmp_path / "labels.csv"
    labels.write_text(f"study_instance_uid,label\n{study_uid(SEED)},1\n", "utf-8")
    source = FolderSource(tmp_path / "ct", labels)
    read = source.load(source.entries()[0])
    assert np.array_equal(read.hu, drawn.study.hu)
    assert read.spacing_mm == pytest.approx(drawn.study.spacing_mm, abs=1e-4)
    assert read.truth.any is True


def test_images_are_ct_and_say_that_they_are_synthetic(drawn: DrawnSeries) -> None:
    """CT Image Storage with everything a reader needs; name, ID, maker and descriptions leave no doubt."""
    image = images_of(drawn)[0]
    assert image.SOPClassUID == CTImageStorage
    for told in (image.PatientName, image.PatientID, image.Manufacturer, image.StudyDescription, image.ImageComments):
        assert "SYNTHETIC" in str(told)
    assert image.PatientPosition == "HFS"
    assert image.PatientAge == f"{drawn.plan.facts.age_years:03.0f}Y"


@pytest.mark.parametrize("rescale", RESCALES)
def test_stored_values_give_the_drawn_hu_under_every_rescale(
    drawn: DrawnSeries, rescale: tuple[float, float, bool, int | None]
) -> None:
    """Slope, intercept, sign and padding vary as scanners do; inside the circle HU is right to half a slope."""
    image = images_of(replace(drawn, plan=replace(drawn.plan, rescale=Rescale(*rescale))))[4]
    hu = image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept)
    inner = np.s_[24:104, 24:104]
    assert np.abs(hu[inner] - drawn.study.hu[4][inner]).max() <= float(image.RescaleSlope) / 2
    if rescale[3] is not None:
        assert hu[0, 0] == rescale[3]
        assert image.PixelPaddingValue == image.pixel_array[0, 0]


def test_truth_as_seg_and_json_is_the_planted_lesion(drawn: DrawnSeries, tmp_path: Path) -> None:
    """Each frame of the SEG lies on its image with the drawn mask; volume, slices and place follow from the mask."""
    told = write_study(drawn, tmp_path / "ct", tmp_path)
    seg = highdicom.seg.segread(tmp_path / SEG)
    assert seg.SOPClassUID == SegmentationStorage
    uids = [image.SOPInstanceUID for image in images_of(drawn)]
    frames = seg.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    assert np.array_equal(frames[..., 0] > 0, drawn.each[0])
    assert json.loads((tmp_path / TRUTH).read_text("utf-8")) == told
    assert (tmp_path / SHEET).stat().st_size > 1000
    (lesion,) = told["lesions"]
    where = np.flatnonzero(drawn.each[0].any((1, 2)))
    assert lesion["slices"] == [where[0], where[-1]]
    assert lesion["volume_ml"] == pytest.approx(drawn.each[0].sum() * np.prod(drawn.study.spacing_mm) / 1000, rel=1e-3)
    z = drawn.study.z_mm
    assert z[where[0]] <= lesion["position_mm"][2] <= z[where[-1]]


def test_twin_without_the_lesion_differs_only_around_it(drawn: DrawnSeries, atlas: Atlas) -> None:
    """Head, scanner and noise are the seed's: a twin proves what a reader or a network makes of the bleed alone."""
    twin = draw_series(replace(drawn.plan, lesions=()), atlas)
    changed = np.abs(drawn.study.hu.astype(int) - twin.study.hu) > 0
    assert changed[drawn.each[0]].mean() > 0.9
    assert changed.mean() < 0.25
    assert twin.study.truth.any is False


def test_tilted_gantry_leans_the_planes_and_says_so(drawn: DrawnSeries, atlas: Atlas) -> None:
    """Orientation, corner and GantryDetectorTilt agree (PS3.3 C.7.6.2); the pixels are those of leaning planes."""
    leaning = replace(drawn.plan, gantry_deg=20.0, z_mm=drawn.plan.z_mm[3:5])
    other = draw_series(leaning, atlas)
    image = images_of(other)[0]
    assert image.ImageOrientationPatient[4:] == pytest.approx([np.cos(np.pi / 9), np.sin(np.pi / 9)], abs=1e-5)
    half_mm = 63.5 * leaning.pitch_mm
    assert float(image.ImagePositionPatient[2]) == pytest.approx(
        leaning.z_mm[0] - half_mm * np.sin(np.pi / 9), abs=1e-3
    )
    assert np.abs(other.study.hu - drawn.study.hu[3:5].astype(int)).mean() > 20


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**40))
def test_every_plan_is_within_what_scanners_do(seed: int) -> None:
    """0.5 to 5 mm, 1 to 2,000 slices upwards, a plausible patient, lesions of the trained families only."""
    plan = plan_series(seed)
    assert plan == plan_series(seed)
    assert 0.5 <= plan.scanner.slab_mm <= 5
    assert 1 <= len(plan.z_mm) <= 2000
    assert np.all(np.diff(plan.z_mm) > 0)
    assert 190 < plan.pitch_mm * plan.matrix < 355
    assert 18 <= (plan.facts.age_years or 0) <= 97
    assert all(index < len(plan.z_mm) for index in plan.repeated)


def test_long_series_and_single_slices_are_planned_as_wished() -> None:
    """One slice, and two thousand; missing ones are counted."""
    assert len(plan_series(1, Wish(slices=1)).z_mm) == 1
    assert len(plan_series(1, Wish(slices=2000, slice_mm=0.5, plain=True)).z_mm) == 2000
    lossy = next(plan for seed in range(200) if (plan := plan_series(seed, Wish(slices=30))).missing)
    assert len(lossy.z_mm) == 30 - lossy.missing


def test_metal_and_dense_bone_leave_streaks_and_soft_slices_none() -> None:
    """What the projections get wrong is added only where there is metal or much bone."""
    rng = np.random.default_rng(1)
    soft = np.full((1, 128, 128), 35, np.float32)
    assert not projected_artefacts(rng, soft, 1.8, 10, 100).any()
    metal = soft.copy()
    metal[0, 60:63, 60:63] = 3000
    streaks = projected_artefacts(rng, metal, 1.8, 0, 100)[0]
    assert np.abs(streaks[50:75, 50:75]).mean() > 3 * np.abs(streaks[:20, :20]).mean()
    bony = soft.copy()
    bony[0, 50:70, 30:50] = bony[0, 50:70, 78:98] = 1500
    bands = projected_artefacts(rng, bony, 1.8, 10, 0)[0]
    assert bands[56:64, 58:70].mean() < bands[20:30, 58:70].mean()  # between two pyramids it is dark


class Threshold:
    """A judge that takes what is 56 to 100 HU for blood, and much bone's border with it."""

    def blood(self, study: Study) -> NDArray[np.bool_]:
        """(n, H, W)."""
        return np.asarray((study.hu > 56) & (study.hu < 100))


def test_realism_compares_each_bleed_with_its_twin(drawn: DrawnSeries, atlas: Atlas) -> None:
    """Dice and the twin's volume are the judge's; masses are passed over; the card tells them."""
    mass = plan_series(SEED, replace(SMALL, lesion="mass", slices=2))
    verdicts = judged([drawn.plan, mass], atlas, Threshold())
    (one,) = verdicts
    planted = float(drawn.each[0].sum() * np.prod(drawn.study.spacing_mm) / 1000)
    assert one.planted_ml == pytest.approx(planted, abs=0.01)
    assert one.found_ml > one.twin_ml > 0
    told = summary(verdicts)
    assert told["silent_twins"] == int(one.twin_ml < SILENT_ML)
    assert str(one.dice) in "\n".join(card_lines(told))
    assert card_lines(None) == card_lines(summary([])) == []


def test_channels_of_the_masks_are_those_of_the_lesions(drawn: DrawnSeries) -> None:
    """The study's masks are the lesions' own, under the kinds of the contract."""
    masks = drawn.study.truth.masks
    assert masks is not None
    channel = CHANNEL_OF[drawn.plan.kinds[0]]
    assert np.array_equal((masks >> channel) & 1 > 0, drawn.each[0])
    assert drawn.study.truth.by_label[KINDS[channel].value] is True
