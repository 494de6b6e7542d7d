"""The loaders read each layout as it is, oddities included, and name the file that is bad."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.test_training import data_cases as cases
from training.data.cq500_in import Cq500Source
from training.data.folder_in import FolderSource
from training.data.phantom_in import PhantomSource
from training.data.physionet_in import PhysionetSource
from training.data.rsna_in import RsnaSource
from training.data.study import COLUMNS, KINDS, UNNAMED_BIT, BadStudy, Fault, NotHounsfield, StudySource
from training.phantom.atlas_in import Atlas
from training.recipe import SliceSet

ANY, IPH, EXTRA, SAH, IVH, MASS = range(6)
SDH = frozenset({"subdural"})
SERIES = SliceSet(
    first_seed=7_100_000, heads=2, slices_per_head=5, lesion_share=1.0, difficulty=(0.0, 0.2), series=True
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two labelled studies: 1 bleeds, 2 does not."""
    cases.write_folder(tmp_path, {1: True, 2: False})
    return tmp_path


def folder_source(folder: Path) -> FolderSource:
    return FolderSource(folder, folder / "labels.csv")


def fault_of(source: StudySource, entry: int = 0) -> BadStudy:
    with pytest.raises(BadStudy) as caught:
        source.load(source.entries()[entry])
    return caught.value


def test_a_folder_gives_slices_from_the_feet_upwards_in_true_hu(folder: Path) -> None:
    """Order is that of the positions, not of the file names; values are those that were written."""
    source = folder_source(folder)
    study = source.load(source.entries()[0])
    assert np.array_equal(study.hu, cases.head(1, bleeding=range(2, 4)))
    assert study.spacing_mm == (cases.GAP_MM, cases.PIXEL_MM, cases.PIXEL_MM)
    assert np.allclose(np.diff(study.z_mm), cases.GAP_MM)
    assert (study.truth.any, source.entries()[1].any) == (True, False)
    assert source.doubts() == ()


def test_a_study_without_a_row_is_named_and_not_taken_for_clean(tmp_path: Path) -> None:
    """Not said is not absent."""
    cases.write_folder(tmp_path, {1: True, 2: None})
    source = folder_source(tmp_path)
    assert source.entries()[1].any is None
    (doubt,) = source.doubts()
    assert doubt.fault is Fault.LABEL_MISSING
    assert doubt.file == str(tmp_path / "study_2")


def test_rows_that_contradict_each_other_are_named_and_none_counts(folder: Path) -> None:
    """A coin is not tossed for the label."""
    table = folder / "labels.csv"
    table.write_text(table.read_text("utf-8") + f"{cases.PREFIX}.1,0\n", "utf-8")
    source = folder_source(folder)
    assert source.entries()[0].any is None
    assert {doubt.fault for doubt in source.doubts()} == {Fault.LABEL_CONTRADICTION, Fault.LABEL_MISSING}
    assert str(table) in {doubt.file for doubt in source.doubts()}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("study,label\n1,0\n", "has no column study_instance_uid"),
        ("study_instance_uid,label\n", "has no row"),
        ("study_instance_uid,label\n1.2,maybe\n", "'maybe' is neither 0 nor 1"),
        ("study_instance_uid,label\n,1\n", "line 2 has no study_instance_uid"),
        ("study_instance_uid,label,mass\n1.2,0,1\n", "label is 0 and a kind is 1"),
    ],
)
def test_a_bad_table_is_named_with_what_is_wrong(folder: Path, text: str, told: str) -> None:
    """The message carries file and reason."""
    (folder / "labels.csv").write_text(text, "utf-8")
    with pytest.raises(BadStudy, match=told) as caught:
        folder_source(folder).entries()
    assert caught.value.file == str(folder / "labels.csv")


def test_a_table_may_name_kinds_patients_and_a_split(folder: Path) -> None:
    """Further columns of the table are read; a byte order mark and spaces are no part of the names."""
    rows = (
        "study_instance_uid , label,mass,patient,split",
        f"{cases.PREFIX}.1,1,1,a,train",
        f"{cases.PREFIX}.2,0,,a,test",
    )
    (folder / "labels.csv").write_text("\ufeff" + "\n".join(rows) + "\n", "utf-8")
    one, other = folder_source(folder).entries()
    assert one.kinds == {"mass"}
    assert one.patient == other.patient
    assert (one.part, other.part) == ("train", "test")


def test_a_patients_identifier_goes_nowhere(folder: Path) -> None:
    """Entries and studies carry a key that tells patients apart, and no PatientID."""
    source = folder_source(folder)
    told = repr(source.entries()) + repr(source.load(source.entries()[0]).facts)
    assert "synthetic" not in told
    assert len({entry.patient for entry in source.entries()}) == 2


@pytest.mark.parametrize(
    ("tags", "fault", "told"),
    [
        ({"RescaleIntercept": None, "RescaleSlope": None}, Fault.NOT_HU, "no RescaleSlope and RescaleIntercept"),
        ({"RescaleType": "US"}, Fault.NOT_HU, "is in US"),
        ({"BitsStored": 8, "HighBit": 7}, Fault.NOT_HU, "8 bits"),
        ({"RescaleSlope": 0}, Fault.NOT_HU, "no RescaleSlope"),
        ({"PixelSpacing": None}, Fault.SPACING, "no PixelSpacing"),
        ({"PixelSpacing": [0.001, 0.001]}, Fault.SPACING, "0.001"),
        ({"ImagePositionPatient": None}, Fault.SPACING, "no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, Fault.ORIENTATION, "no ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, Fault.ORIENTATION, "is not axial"),
        ({"NumberOfFrames": 2}, Fault.CORRUPT, "multi-frame"),
        ({"PixelData": b"\0" * 1000}, Fault.CORRUPT, "cannot be read"),
    ],
)
def test_images_that_cannot_be_used_are_named(tmp_path: Path, tags: dict[str, object], fault: Fault, told: str) -> None:
    """Each fault has its kind, its file and a sentence."""
    files = cases.write_series(tmp_path, cases.head(1), **tags)
    bad = fault_of(FolderSource(tmp_path))
    assert bad.fault is fault
    assert told in bad.reason
    assert bad.file in {str(file) for file in files}
    assert isinstance(bad, NotHounsfield) == (fault is Fault.NOT_HU)


def test_one_image_of_another_matrix_spacing_or_plane_is_named(tmp_path: Path) -> None:
    """What cannot be stacked is not stacked: the odd file out is told."""
    hu = cases.head(1)
    odd: dict[str, tuple[Fault, dict[str, object]]] = {
        "matrix": (Fault.MIXED_SPACING, {}),
        "spacing": (Fault.MIXED_SPACING, {"PixelSpacing": [1.2, 1.2]}),
        "plane": (Fault.ORIENTATION, {"ImageOrientationPatient": [1, 0, 0, 0, 0.95, -0.3122]}),
    }
    for name, (fault, tags) in odd.items():
        cases.write_series(tmp_path / name, hu)
        small = hu[5][:48, :48] if name == "matrix" else hu[5]
        file = cases.write(tmp_path / name / "IM0001.dcm", cases.image(small, 5, **tags))
        bad = fault_of(FolderSource(tmp_path / name))
        assert (bad.fault, bad.file) == (fault, str(file))


def test_a_truncated_file_is_named_before_anything_is_loaded(folder: Path) -> None:
    """Half a header is told by the source, half of the pixels by loading."""
    file = folder / "study_1" / "IM0003.dcm"
    whole = file.read_bytes()
    file.write_bytes(whole[:-500])
    assert fault_of(folder_source(folder)).file == str(file)
    file.write_bytes(whole[:200])
    assert str(file) in {doubt.file for doubt in folder_source(folder).doubts() if not doubt.mild}


def test_a_licence_text_beside_the_images_is_told_mildly(folder: Path) -> None:
    """Files that never meant to be DICOM do not stop anybody."""
    (folder / "LICENSE").write_text("You may.", "utf-8")
    (doubt,) = folder_source(folder).doubts()
    assert doubt.mild
    assert doubt.file.endswith("LICENSE")


def test_missing_and_repeated_slices_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    """A gap is mixed spacing, the same place twice is a duplicate and left out."""
    hu = cases.head(1, 8)
    files = cases.write_series(tmp_path, hu)
    files[4].unlink()
    cases.write(tmp_path / "IM9999.dcm", cases.image(hu[1], 1, InstanceNumber=99))
    source = FolderSource(tmp_path)
    study = source.load(source.entries()[0])
    assert np.array_equal(study.hu, np.delete(hu, 4, 0))
    assert {doubt.fault: Path(doubt.file).name for doubt in study.doubts} == {
        Fault.DUPLICATE: "IM9999.dcm",
        Fault.MIXED_SPACING: files[5].name,
    }


@pytest.mark.parametrize(("across", "down"), [(-1, -1), (-1, 1), (1, -1)])
def test_a_patient_lying_the_other_way_round_is_turned(tmp_path: Path, across: int, down: int) -> None:
    """Feet first and prone change the axes of the picture; the study's never: left on the right, back below."""
    hu = cases.head(1, bleeding=[2])
    turned: list[object] = [across, 0, 0, 0, down, 0]
    cases.write_series(tmp_path, hu[:, ::down, ::across], ImageOrientationPatient=turned)
    source = FolderSource(tmp_path)
    study = source.load(source.entries()[0])
    assert np.array_equal(study.hu, hu)
    assert np.allclose(np.diff(study.z_mm), cases.GAP_MM)


@pytest.mark.parametrize(("padding", "vr"), [(-3000, "SS"), (0, "SS"), (2500, "US"), (62536, "US")])
def test_padding_becomes_air_and_tissue_of_the_same_number_stays(tmp_path: Path, padding: int, vr: str) -> None:
    """Written as an unsigned or signed value of the same bits; at 0 HU there is also water inside the head."""
    hu = cases.head(1, 3)
    hu[:, 48:50, 48:50] = 0
    stored = hu.copy()
    stored[:, :4, :] = np.array(padding).astype(np.uint16).astype(np.int16)
    for nth, one in enumerate(stored):
        data = cases.image(one, nth, PixelRepresentation=1, RescaleIntercept=0, PixelData=one.tobytes())
        data.add_new(0x00280120, vr, padding)
        cases.write(tmp_path / f"{nth}.dcm", data)
    source = FolderSource(tmp_path)
    read = source.load(source.entries()[0]).hu
    assert (read[:, :4] == -1024).all()
    assert np.array_equal(read[:, 4:], hu[:, 4:])


def test_a_folder_without_ct_says_so(tmp_path: Path) -> None:
    """An empty or missing folder is an error, not an empty training set."""
    with pytest.raises(BadStudy, match="holds no CT slice"):
        FolderSource(tmp_path).entries()
    with pytest.raises(BadStudy, match="no such folder"):
        FolderSource(tmp_path / "nowhere").entries()


def test_rsna_slices_get_their_own_labels_in_order(tmp_path: Path) -> None:
    """Flat files become studies; epidural and subdural are one label; of masses nothing is said."""
    slices = [frozenset(), SDH, frozenset({"epidural", "intraparenchymal"}), frozenset()]
    cases.write_rsna(tmp_path, {"a": slices, "b": [frozenset()] * 4})
    source = RsnaSource(tmp_path)
    bleeding, clean = (source.load(entry) for entry in source.entries())
    assert bleeding.truth.by_slice is not None
    assert bleeding.truth.by_slice[:, ANY].tolist() == [0, 1, 1, 0]
    assert bleeding.truth.by_slice[:, EXTRA].tolist() == [0, 1, 1, 0]
    assert bleeding.truth.by_slice[:, IPH].tolist() == [0, 0, 1, 0]
    assert np.isnan(bleeding.truth.by_slice[:, MASS]).all()
    assert (bleeding.truth.any, clean.truth.any) == (True, False)
    assert "mass" not in clean.truth.by_label
    assert [(doubt.fault, doubt.mild) for doubt in source.doubts()] == [(Fault.DUPLICATE, True)]


def test_rsna_images_with_turned_over_numbers_are_mended_and_told(tmp_path: Path) -> None:
    """Some thousand images hold air at 3096 of 12 bits: they come out as the HU they were, or not at all."""
    cases.write_rsna(tmp_path, {"a": [frozenset()] * 3, "b": [frozenset()] * 3})
    source = RsnaSource(tmp_path)
    plain, wrapped = (source.load(entry) for entry in source.entries())
    assert np.array_equal(wrapped.hu, cases.head(1, 3).clip(-1000))
    assert plain.doubts == ()
    assert [(doubt.fault, doubt.mild) for doubt in wrapped.doubts] == [(Fault.NOT_HU, True)] * 3


def test_rsna_images_without_a_row_and_rows_at_odds_are_named(tmp_path: Path) -> None:
    """What is not said stays not said for that image alone."""
    images = cases.write_rsna(tmp_path, {"a": [frozenset()] * 3})
    table = tmp_path / "stage_2_train.csv"
    lines = [line for line in table.read_text("utf-8").splitlines() if not line.startswith(images[2])]
    table.write_text("\n".join([*lines, f"{images[1]}_any,1"]) + "\n", "utf-8")
    source = RsnaSource(tmp_path)
    told = {doubt.fault: doubt for doubt in source.doubts() if not doubt.mild}
    assert told[Fault.LABEL_MISSING].file.endswith(f"{images[2]}.dcm")
    assert images[1] in told[Fault.LABEL_CONTRADICTION].sentence
    by_slice = source.load(source.entries()[0]).truth.by_slice
    assert by_slice is not None
    assert np.isnan(by_slice[:, ANY]).tolist() == [False, True, True]
    assert source.entries()[0].any is None


def test_rsnas_known_bad_image_is_named(tmp_path: Path) -> None:
    """ID_6431af929 has fewer pixels than it announces; so may others."""
    images = cases.write_rsna(tmp_path, {"a": [frozenset()] * 3})
    file = tmp_path / "stage_2_train" / f"{images[1]}.dcm"
    file.write_bytes(file.read_bytes()[:-1000])
    assert fault_of(RsnaSource(tmp_path)).file == str(file)


def test_cq500_goes_by_the_majority_of_three_readers(tmp_path: Path) -> None:
    """Two of three decide; a reader who says subdural or epidural says extra-axial; mass effect is no mass."""
    votes = {
        0: {"ICH": (1, 1, 0), "SDH": (1, 0, 0), "EDH": (0, 1, 0), "MassEffect": (1, 1, 1)},
        12: {"ICH": (1, 0, 0), "IPH": (1, 0, 0)},
    }
    cases.write_cq500(tmp_path, votes)
    source = Cq500Source(tmp_path)
    bleeding, clean = source.entries()
    assert (bleeding.uid, clean.uid) == ("CQ500-CT-0", "CQ500-CT-12")
    assert (bleeding.any, bleeding.kinds) == (True, frozenset({"subdural_epidural"}))
    assert (clean.any, clean.kinds) == (False, frozenset())
    assert "mass" not in source.load(bleeding).truth.by_label


def test_cq500_reads_the_plain_series_of_routine_thickness(tmp_path: Path) -> None:
    """Contrast, bone, thin and sagittal series of the same head are not taken."""
    cases.write_cq500(tmp_path, {3: {"ICH": (1, 1, 1)}})
    source = Cq500Source(tmp_path)
    study = source.load(source.entries()[0])
    assert np.array_equal(study.hu, cases.head(300, bleeding=range(2, 4)))


def test_cq500_names_cases_without_row_and_bad_names(tmp_path: Path) -> None:
    """A case that the table does not know has no label; a name that is none stops."""
    cases.write_cq500(tmp_path, {1: {}, 2: {}})
    table = tmp_path / "reads.csv"
    lines = table.read_text("utf-8").splitlines()
    table.write_text("\n".join(lines[:2]) + "\n", "utf-8")
    (doubt,) = Cq500Source(tmp_path).doubts()
    assert doubt.fault is Fault.LABEL_MISSING
    assert "CQ500CT2" in doubt.file
    table.write_text("\n".join([lines[0], lines[1].replace("CQ500-CT-1", "Case 1")]) + "\n", "utf-8")
    with pytest.raises(BadStudy, match="'Case 1' is not CQ500-CT-<n>"):
        Cq500Source(tmp_path).entries()


def test_physionet_masks_get_the_kind_their_slice_names(tmp_path: Path) -> None:
    """One kind named: its bit. Two kinds: the pixels are blood of no said kind."""
    kinds = [[], ["Subdural"], ["Epidural", "Subdural"], ["Intraparenchymal", "Subarachnoid"], []]
    cases.write_physionet(tmp_path, {49: kinds, 50: [[]] * 5})
    source = PhysionetSource(tmp_path)
    study = source.load(source.entries()[0])
    assert study.truth.masks is not None
    bits = [sorted(set(np.unique(image)) - {0}) for image in study.truth.masks]
    extra, unnamed = 1 << KINDS.index(COLUMNS[EXTRA]), 1 << UNNAMED_BIT
    assert bits == [[], [extra], [extra], [unnamed], []]
    assert np.median(study.hu[study.truth.masks > 0]) == pytest.approx(cases.BLOOD_HU, abs=2)
    assert (study.facts.age_years, study.facts.sex) == (79, "M")
    assert source.doubts() == ()


def test_physionet_volumes_come_out_the_same_whichever_way_they_are_stored(tmp_path: Path) -> None:
    """Slices stored from the head downwards are turned, and rows of the table (in stored order) with them."""
    kinds = [[], ["Subdural"], [], [], [], []]
    cases.write_physionet(tmp_path, {66: kinds, 67: kinds}, upside_down=frozenset({67}))
    source = PhysionetSource(tmp_path)
    for entry in source.entries():
        study = source.load(entry)
        assert study.truth.by_slice is not None
        assert study.truth.by_slice[:, ANY].tolist() == [0, 1, 0, 0, 0, 0]
        slice_, row, column = cases.where_bleeding(study.hu)
        assert slice_ == 1
        assert row < cases.SIZE // 2 < column  # in front, on the patient's left


def test_physionet_names_what_does_not_fit(tmp_path: Path) -> None:
    """Rows and slices, scan and mask, label and mask: each mismatch names its file."""
    kinds: list[list[str]] = [[], ["Subdural"], [], []]
    cases.write_physionet(tmp_path, dict.fromkeys((49, 50, 51, 52), kinds))
    cases.write_nifti(tmp_path / "ct_scans" / "049.nii", cases.head(49, 3))
    cases.write_nifti(tmp_path / "masks" / "050.nii", np.zeros((3, 96, 96), np.uint8))
    cases.write_nifti(tmp_path / "masks" / "051.nii", np.zeros((4, 96, 96), np.uint8))
    (tmp_path / "ct_scans" / "052.nii").write_bytes(b"\0" * 400)
    source = PhysionetSource(tmp_path)
    rows, shape, corrupt = (fault_of(source, nth) for nth in (0, 1, 3))
    assert (rows.fault, Path(rows.file).name) == (Fault.LABEL_MISSING, "049.nii")
    assert (shape.fault, Path(shape.file).parent.name) == (Fault.LABEL_CONTRADICTION, "masks")
    assert (corrupt.fault, Path(corrupt.file).name) == (Fault.CORRUPT, "052.nii")
    (doubt,) = source.load(source.entries()[2]).doubts
    assert (doubt.fault, Path(doubt.file).name) == (Fault.LABEL_CONTRADICTION, "051.nii")


def test_physionet_knows_the_numbers_that_the_set_itself_lacks(tmp_path: Path) -> None:
    """059 to 065 have rows and no scan; another one missing is told."""
    cases.write_physionet(tmp_path, {49: [[]] * 3, 60: [[]] * 3, 70: [[]] * 3})
    for number in (60, 70):
        (tmp_path / "ct_scans" / f"{number:03d}.nii").unlink()
    (doubt,) = PhysionetSource(tmp_path).doubts()
    assert "patient 070" in doubt.sentence


def test_physionet_windowed_volumes_are_refused(tmp_path: Path) -> None:
    """A volume of 0…255 is no HU."""
    cases.write_physionet(tmp_path, {49: [[]] * 3})
    cases.write_nifti(tmp_path / "ct_scans" / "049.nii", cases.head(49, 3).clip(0, 255))
    bad = fault_of(PhysionetSource(tmp_path))
    assert isinstance(bad, NotHounsfield)
    assert bad.file.endswith("049.nii")


def test_phantoms_are_studies_like_any_other(atlas: Atlas) -> None:
    """Same seed, same study; labels, masks and kinds agree; scattered slices are refused."""
    source = PhantomSource(SERIES, atlas)
    entry = source.entries()[0]
    study, again = source.load(entry), source.load(entry)
    assert np.array_equal(study.hu, again.hu)
    assert study.truth.masks is not None
    assert study.truth.by_slice is not None
    present = {kind.value for nth, kind in enumerate(KINDS) if ((study.truth.masks >> nth) & 1).any()}
    assert present <= entry.kinds
    assert entry.any is True
    with pytest.raises(ValueError, match="series"):
        PhantomSource(SliceSet(1, 1, 1, 0.5, (0.0, 0.1)), atlas)


def test_phantom_kinds_are_those_of_the_contract() -> None:
    """Bit c of a mask is channel c of the generator and label c of the served model."""
    from training.phantom.lesions import CHANNELS

    assert json.dumps([kind.value for kind in KINDS]) == json.dumps(CHANNELS)
