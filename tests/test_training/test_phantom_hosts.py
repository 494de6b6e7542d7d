"""Bleeds planted into slices that have none; the slices here are bleed-free phantoms, no patient's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.test_training.data_cases import PIXEL_MM, head, image, write, write_series
from training.data.study import BadStudy
from training.phantom.atlas_in import Atlas
from training.phantom.hosts import AIR_HU, FAT_HU, Host, host_of, hosted, inside_of, restored
from training.phantom.plan import plan_head
from training.phantom.render import render
from training.phantom.scanner import TRAIN_FAMILIES, plan_scanner
from training.phantom.visible import contrast_hu, visible
from training.real_in import digests_of, read_ct_folder, read_hosts
from training.slices_out import SLICE_SHAPE

PITCH_MM = 0.8


@pytest.fixture(scope="module")
def slices(atlas: Atlas) -> NDArray[np.float32]:
    """Through the eyes, the ventricles and the vertex."""
    scanner = plan_scanner(3, TRAIN_FAMILIES)
    return render(atlas, plan_head(3), (), scanner, (10.0, 25.0, 45.0), shape=(288, 288), pitch_mm=PITCH_MM).hu


@pytest.fixture(scope="module")
def hosts(slices: NDArray[np.float32]) -> list[Host]:
    """As they are read."""
    return [host_of(hu, PITCH_MM) for hu in slices]


def test_the_brain_of_a_slice_is_found(hosts: list[Host]) -> None:
    """Large, within the skull, of the density of brain; water and air have none."""
    for host in hosts:
        assert host.hu.shape == SLICE_SHAPE
        assert host.inside is not None
        assert 60 < host.inside.sum() * host.pitch_mm**2 / 100 < 250  # cm²
        assert 15 < np.median(host.hu[host.inside]) < 45
    for hu in (0.0, AIR_HU):
        assert inside_of(np.full(SLICE_SHAPE, hu, np.float32), 1.0) is None


def test_a_planted_bleed_is_where_its_mask_says(hosts: list[Host]) -> None:
    """Brighter within the mask, the host elsewhere but for a dark rim; labels are those of the masks."""
    table = hosted(hosts, 60, 1.0, 5)
    kinds = set(table.kinds.tolist())
    assert {"intraparenchymal", "subdural_epidural"} <= kinds
    masks = table.masks()
    for nth in range(len(table.hu)):
        host = hosts[nth % len(hosts)]
        assert host.inside is not None
        mask = masks[nth].any(0)
        if not mask.any():
            continue
        assert not (mask & ~host.inside).any()
        change = table.hu[nth] - np.clip(host.hu, -1024, 3071)
        assert change[mask].mean() > 5
        assert np.abs(change[~host.inside]).max() <= 15
    present = table.labels[:, 0] == 1
    assert present.mean() > 0.7
    assert not (present & ~masks.any((1, 2, 3))).any()


def test_hosts_that_get_no_bleed_stay_as_they_are(hosts: list[Host]) -> None:
    """Real negatives; and the same seed gives the same pictures."""
    clean = hosted(hosts, 6, 0.0, 5)
    assert not clean.labels.any()
    assert all((clean.hu[nth] == np.round(np.clip(hosts[nth % 3].hu, -1024, 3071))).all() for nth in range(6))
    again, other = hosted(hosts, 9, 0.5, 5), hosted(hosts, 9, 0.5, 6)
    assert (hosted(hosts, 9, 0.5, 5).hu == again.hu).all()
    assert (again.hu != other.hu).any()


def test_mimics_are_drawn_within_the_brain_and_are_no_lesions(hosts: list[Host]) -> None:
    """Spots brighter than blood, darker areas, bone at the table: labels stay negative."""
    table = hosted(hosts, 40, 0.0, 5, mimic_share=0.7)
    assert not table.labels.any()
    brightest, darkest = 0.0, 0.0
    for nth in range(40):
        host = hosts[nth % len(hosts)]
        assert host.inside is not None
        change = table.hu[nth] - np.round(np.clip(host.hu, -1024, 3071))
        assert not change[~host.inside].any()
        brightest, darkest = max(brightest, float(change.max())), min(darkest, float(change.min()))
    assert brightest > 100
    assert -25 < darkest < -8


def test_slices_without_a_brain_are_no_hosts() -> None:
    """A folder of chests would teach nothing: it is refused."""
    with pytest.raises(ValueError, match="no slice with a brain"):
        hosted([host_of(np.full((64, 64), 40, np.float32), 3.0)], 4, 0.5, 1)


def test_an_8_bit_picture_gets_its_air_fat_and_bone_again(slices: NDArray[np.float32]) -> None:
    """What was clipped to 0…255 is told by where it lies; brain keeps its density."""
    hu = slices[1]
    told = restored(np.clip(hu, 0, 255), PITCH_MM)
    assert (told[:4] == AIR_HU).all()
    assert told.max() > 500
    brain = inside_of(hu, PITCH_MM)
    assert brain is not None
    assert np.abs(told[brain] - np.clip(hu[brain], 0, 255)).max() < 1
    assert (told == FAT_HU).mean() < 0.2


def test_a_folder_is_read_whatever_it_holds(slices: NDArray[np.float32], tmp_path: Path) -> None:
    """Pictures as they come; an empty folder is named."""
    with pytest.raises(BadStudy, match=r"no \.dcm and no \.png"):
        read_hosts(tmp_path)
    Image.fromarray(np.clip(slices[0], 0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    (found,) = read_hosts(tmp_path)
    assert found.hu.shape == SLICE_SHAPE
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(BadStudy, match=r"b\.png: is no picture"):
        read_hosts(tmp_path)


def test_pixels_of_a_sound_scan_are_read_as_they_are(tmp_path: Path) -> None:
    """In HU, from the feet upwards, with their spacing; localisers and licence texts are passed over."""
    hu = head(3)
    write_series(tmp_path / "series", hu)
    write(tmp_path / "scout.dcm", image(hu[0], ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]))
    (tmp_path / "LICENSE").write_text("free", "utf-8")
    found = read_ct_folder(tmp_path)
    assert [pitch_mm for _, pitch_mm in found] == [PIXEL_MM] * len(hu)
    assert all((one == plane).all() for (one, _), plane in zip(found, hu, strict=True))


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ({"Modality": "MR"}, "is MR, no CT"),
        ({"RescaleSlope": None}, "no RescaleSlope"),
        ({"RescaleIntercept": 0}, "hold no HU"),
        ({"PixelSpacing": None}, "no PixelSpacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "not axial"),
        ({"PixelData": b"short"}, "cannot be read"),
    ],
)
def test_a_slice_that_is_no_ct_in_hu_is_named(tags: dict[str, Any], told: str, tmp_path: Path) -> None:
    """One sentence with the file's name, as hosts and for false alarms alike."""
    write(tmp_path / "a.dcm", image(head(1)[0], **tags))
    for read in (read_hosts, read_ct_folder):
        with pytest.raises(BadStudy, match=rf"a\.dcm.*{told}"):
            read(tmp_path)


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    """By its suffix it should be one."""
    (tmp_path / "junk.dcm").write_bytes(b"junk")
    with pytest.raises(BadStudy, match=r"junk\.dcm: is no DICOM"):
        read_hosts(tmp_path)


def test_a_slice_is_known_again_as_an_8_bit_picture(tmp_path: Path) -> None:
    """Its soft tissue is the same; another head's is not, and a blank picture is nobody's."""
    hu = head(2, 1)
    write_series(tmp_path / "dicom", hu)
    (tmp_path / "png").mkdir()
    Image.fromarray(np.clip(hu[0], 0, 255).astype(np.uint8)).save(tmp_path / "png" / "a.png")
    Image.fromarray(np.zeros(hu[0].shape, np.uint8)).save(tmp_path / "png" / "blank.png")
    assert digests_of(tmp_path / "dicom") == digests_of(tmp_path / "png")
    assert len(digests_of(tmp_path / "png")) == 1
    write_series(tmp_path / "other", head(4, 1))
    assert not digests_of(tmp_path / "png") & digests_of(tmp_path / "other")


def test_slices_whose_lesion_nobody_could_see_are_left_out(hosts: list[Host]) -> None:
    """By its density against the brain around it, brighter or darker; slices without a lesion stay."""
    brain = np.full((60, 60), 35, np.int16)
    mask = np.zeros((60, 60), bool)
    mask[20:35, 20:35] = True
    for hu, told in ((60, 25), (38, 3), (10, -25)):
        assert contrast_hu(np.where(mask, hu, brain).astype(np.int16), mask) == told
    assert contrast_hu(np.where(mask, 500, brain).astype(np.int16), mask) == 0.0
    table = hosted(hosts, 40, 0.6, 2)
    clean = int((table.labels[:, 0] != 1).sum())
    assert len(visible(table, 0.0).hu) == 40
    some, none = visible(table, 20.0), visible(table, 1e4)
    assert clean < len(some.hu) < 40
    assert len(none.hu) == clean
    assert not (none.labels[:, 0] == 1).any()
