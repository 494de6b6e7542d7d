"""Phantom studies are real DICOM with known truth, and a function of their seed."""

import io
from datetime import datetime

import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from launch.phantom import Head, PhantomStudy, phantom_study, read_heads, studies
from launch.phantom_in import shipped_heads

TAKEN = datetime(2026, 3, 1, 7, 30)  # noqa: DTZ001  # DICOM's local study time
LEAST_RUN = 5


@pytest.fixture(scope="module")
def heads() -> tuple[Head, ...]:
    """What ships."""
    return shipped_heads()


@pytest.fixture(scope="module")
def study(heads: tuple[Head, ...]) -> PhantomStudy:
    """One bleeding study."""
    return phantom_study(heads[0], "7.0", TAKEN)


def test_there_are_bleeding_and_clean_heads_of_several_kinds(heads: tuple[Head, ...]) -> None:
    """At least three kinds of bleed and two clean heads."""
    assert len({head.lesion for head in heads if head.truth == "lesion"}) >= 3
    assert sum(head.truth == "clean" for head in heads) >= 2


def test_a_bleed_shows_on_enough_consecutive_slices_before_the_last(heads: tuple[Head, ...]) -> None:
    """The flag can come while slices still arrive: five in a row, not only the last three. Clean heads have none."""
    for head in heads:
        seen = "".join("x" if row[0] == 1 else "." for row in head.labels_by_slice)
        assert ("x" * LEAST_RUN in seen[:-3]) is (head.truth == "lesion")
        assert head.truth == "lesion" or "x" not in seen


def test_every_image_is_a_part_10_ct_image_that_reads_back(study: PhantomStudy) -> None:
    """Written and read again: CT Image Storage, 512 × 512 int16, HU by RescaleIntercept, one frame of reference."""
    positions = []
    for image in study.images:
        held = io.BytesIO()
        image.save_as(held, enforce_file_format=True)
        held.seek(0)
        read = pydicom.dcmread(held)
        assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert read.SOPClassUID == read.file_meta.MediaStorageSOPClassUID == CTImageStorage
        assert read.pixel_array.shape == (512, 512)
        hu = read.pixel_array * float(read.RescaleSlope) + float(read.RescaleIntercept)
        assert hu[0, 0] < -950
        assert hu.max() > 300
        positions.append(float(read.ImagePositionPatient[2]))
    assert np.allclose(np.diff(positions), float(study.images[0].SliceThickness))


def test_instances_have_unique_uids_and_share_study_and_series(study: PhantomStudy) -> None:
    """One study, one series, as many SOP instances as images, numbered from 1."""
    assert len({image.SOPInstanceUID for image in study.images}) == len(study.images)
    assert {str(image.StudyInstanceUID) for image in study.images} == {study.study_instance_uid}
    assert len({image.SeriesInstanceUID for image in study.images}) == 1
    assert [image.InstanceNumber for image in study.images] == list(range(1, len(study.images) + 1))


def test_the_same_seed_gives_the_same_studies_and_another_seed_others(heads: tuple[Head, ...]) -> None:
    """UIDs and pixels follow the seed."""
    first, again, other = (next(studies(heads, 1, seed, TAKEN)) for seed in (1, 1, 2))
    assert first.study_instance_uid == again.study_instance_uid
    assert all(a.PixelData == b.PixelData for a, b in zip(first.images, again.images, strict=True))
    assert first.study_instance_uid != other.study_instance_uid


def test_one_head_gives_many_studies_with_different_pixels(heads: tuple[Head, ...]) -> None:
    """Digests differ, so that no study is taken for a resend of another."""
    made = [phantom_study(heads[0], f"9.{n}", TAKEN) for n in range(3)]
    assert len({study.images[10].PixelData for study in made}) == 3
    assert len({study.study_instance_uid for study in made}) == 3


def test_studies_alternate_between_clean_and_bleeding(heads: tuple[Head, ...]) -> None:
    """Both truths are among any two studies in a row."""
    truths = [study.truth for study in studies(heads, 4, 5, TAKEN)]
    assert truths == ["clean", "lesion", "clean", "lesion"]


def test_a_record_of_other_heads_is_refused() -> None:
    """Asset and truth belong together."""
    held = io.BytesIO()
    np.savez(held, head_0=np.zeros((1, 2, 2), np.int16))
    with pytest.raises(ValueError, match="differ in number"):
        read_heads(held.getvalue(), '{"heads": []}')
