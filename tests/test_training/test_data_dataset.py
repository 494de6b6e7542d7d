"""What training gets: slices as tensors, from a cache, in batches."""

import json
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from tests.test_training import data_cases as cases
from training.data.cache_out import Cached
from training.data.dataset import AIR_HU, SliceDataset, padded_batch
from training.data.folder_in import FolderSource
from training.data.physionet_in import PhysionetSource
from training.data.rsna_in import RsnaSource
from training.data.study import BadStudy, Doubt, Entry, Study, StudySource
from training.preprocess import ServedGrid

ANY, EXTRA, SAH = 0, 2, 3


class _Counting:
    """Counts what is loaded through it."""

    def __init__(self, source: StudySource) -> None:
        self.source = source
        self.loads = 0
        self.version = source.version

    def entries(self) -> Sequence[Entry]:
        return self.source.entries()

    def doubts(self) -> Sequence[Doubt]:
        return self.source.doubts()

    def load(self, entry: Entry) -> Study:
        self.loads += 1
        return self.source.load(entry)


@pytest.fixture
def physionet(tmp_path: Path) -> PhysionetSource:
    """049 bleeds in two slices, once of one kind, once of two; 050 is clean."""
    kinds: list[list[str]] = [[], ["Subdural"], ["Subdural", "Subarachnoid"], []]
    cases.write_physionet(tmp_path, {49: kinds, 50: [[]] * 4})
    return PhysionetSource(tmp_path)


def test_a_cached_study_is_the_study_and_is_loaded_once(physionet: PhysionetSource, tmp_path: Path) -> None:
    """Array by array, label by label; the second load does not ask the source."""
    counting = _Counting(physionet)
    cached = Cached(counting, tmp_path / "cache")
    entry = cached.entries()[0]
    plain = physionet.load(entry)
    for study in (cached.load(entry), cached.load(entry)):
        assert np.array_equal(study.hu, plain.hu)
        assert np.array_equal(study.z_mm, plain.z_mm)
        assert study.truth.masks is not None
        assert plain.truth.masks is not None
        assert np.array_equal(study.truth.masks, plain.truth.masks)
        assert np.array_equal(np.asarray(study.truth.by_slice), np.asarray(plain.truth.by_slice), equal_nan=True)
        assert (study.facts, study.spacing_mm, study.doubts) == (plain.facts, plain.spacing_mm, plain.doubts)
        assert (study.truth.any, study.truth.by_label) == (plain.truth.any, plain.truth.by_label)
    assert counting.loads == 1


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    """The cache goes by the files' sizes and times, and by the loader's version."""
    cases.write_folder(tmp_path / "set", {1: True})
    cached = Cached(FolderSource(tmp_path / "set"), tmp_path / "cache")
    before = np.array(cached.load(cached.entries()[0]).hu)
    uid = f"{cases.PREFIX}.1"
    cases.write_series(tmp_path / "set" / "study_1", cases.head(2, 6), StudyInstanceUID=uid, PatientID="1")
    again = Cached(FolderSource(tmp_path / "set"), tmp_path / "cache")
    assert not np.array_equal(again.load(again.entries()[0]).hu, before)


def test_the_cache_names_no_patient_and_keeps_no_half_study(tmp_path: Path) -> None:
    """Nothing in it holds the patient's key; a bad study leaves nothing behind."""
    cases.write_folder(tmp_path / "set", {1: True, 2: False})
    bad = tmp_path / "set" / "study_2" / "IM0001.dcm"
    bad.write_bytes(bad.read_bytes()[:-100])
    source = FolderSource(tmp_path / "set", tmp_path / "set" / "labels.csv")
    cached = Cached(source, tmp_path / "cache")
    good, broken = cached.entries()
    cached.load(good)
    for _ in range(2):
        with pytest.raises(BadStudy):
            cached.load(broken)
    (kept,) = (tmp_path / "cache" / "studies").iterdir()
    text = (kept / "study.json").read_text("utf-8")
    assert good.patient not in text
    assert "synthetic" not in text
    assert "patient" not in json.loads(text)


def test_a_slice_comes_with_its_labels_masks_and_what_of_them_is_said(physionet: PhysionetSource) -> None:
    """One kind named: that mask may be compared. Two kinds: only their union may, and the kinds that are absent."""
    data = SliceDataset(physionet, physionet.entries())
    assert len(data) == 8
    one, two, clean = data[1], data[2], data[4]
    assert one["hu"].shape == (1, cases.SIZE, cases.SIZE)
    assert one["labels"].tolist()[:5] == [1, 0, 1, 0, 0]
    assert torch.isnan(one["labels"][5])
    assert one["said"].tolist() == [1, 1, 1, 1, 1, 0]
    assert torch.equal(one["masks"][EXTRA - 1], one["bleed"][0])
    assert two["said"].tolist() == [1, 1, 0, 0, 1, 0]
    assert two["masks"].sum() == 0
    assert two["bleed"].sum() > 0
    assert clean["labels"].tolist()[:5] == [0] * 5
    assert clean["bleed"].sum() == 0
    assert one["pitch_mm"].tolist() == pytest.approx([cases.PIXEL_MM] * 2)


def test_labels_of_the_study_alone_say_nothing_of_a_bleeding_studys_slices(tmp_path: Path) -> None:
    """A clean study is clean in every slice; a bleeding one is not bleeding in every slice."""
    table = cases.write_folder(tmp_path, {1: True, 2: False})
    source = FolderSource(tmp_path, table)
    data = SliceDataset(source, source.entries())
    assert np.isnan(data.labels[:6, ANY]).all()
    assert (data.labels[6:, ANY] == 0).all()
    assert data[0]["said"].tolist() == [0] * 6
    assert data[6]["said"][0] == 1


def test_neighbours_lie_where_they_were_asked_for_in_millimetres(tmp_path: Path) -> None:
    """5 mm below and 10 mm above, whatever the slice distance; the end of the series stands in for what is beyond."""
    cases.write_rsna(tmp_path, {"a": [frozenset()] * 5})
    source = RsnaSource(tmp_path)
    hu = source.load(source.entries()[0]).hu.astype(np.float32)
    data = SliceDataset(source, source.entries(), neighbours_mm=(-5.0, 10.0))
    for at, rows in ((0, (0, 0, 2)), (2, (2, 1, 4)), (4, (4, 3, 4))):
        assert np.array_equal(data[at]["hu"].numpy(), hu[list(rows)])


def test_slices_may_be_chosen_by_label_and_drawn_in_balance(physionet: PhysionetSource) -> None:
    """`keep` leaves slices out; the weights give bleeding slices the share asked for."""
    every = SliceDataset(physionet, physionet.entries())
    weights = every.weights(0.5)
    assert weights[every.labels[:, ANY] == 1].sum() == pytest.approx(0.5)
    assert weights.sum() == pytest.approx(1.0)
    bleeding = SliceDataset(physionet, physionet.entries(), keep=lambda labels: bool(labels[ANY] == 1))
    assert [int(bleeding[at]["row"]) for at in range(len(bleeding))] == [1, 2]
    assert bleeding.weights(0.5).sum() == pytest.approx(1.0)


def test_a_bad_study_is_left_out_and_told_or_stops(tmp_path: Path) -> None:
    """A long run does not end on one file unless it is to."""
    table = cases.write_folder(tmp_path, {1: True, 2: False})
    bad = tmp_path / "study_1" / "IM0001.dcm"
    bad.write_bytes(bad.read_bytes()[:-100])
    source = FolderSource(tmp_path, table)
    data = SliceDataset(source, source.entries())
    assert len(data) == 6
    assert [one.file for one in data.bad] == [str(bad)]
    assert int(data[0]["study"]) == 0
    assert data.studies == [source.entries()[1]]
    with pytest.raises(BadStudy, match="IM0001"):
        SliceDataset(source, source.entries(), strict=True)


def test_slices_kept_in_memory_are_the_same_slices(physionet: PhysionetSource) -> None:
    """And the source is not asked for them again."""
    data = SliceDataset(physionet, physionet.entries())
    counting = _Counting(physionet)
    kept = SliceDataset(counting, counting.entries()).in_memory()
    before = counting.loads
    for at in (1, 6, 1):
        assert torch.equal(kept[at]["hu"], data[at]["hu"])
    assert counting.loads == before == 4  # once to count the slices, once to keep them


def test_batches_of_different_matrices_are_padded_with_air(physionet: PhysionetSource) -> None:
    """Mask and picture stay together, and what is served sees the same head where it was."""
    small = SliceDataset(physionet, physionet.entries())[1]
    columns = 14  # the head is 81 rows high and 68 columns wide
    cut = {**small, **{name: small[name][:, 6:-6, columns:-columns] for name in ("hu", "masks", "bleed")}}
    batch = padded_batch([cut, small])
    assert batch["hu"].shape == (2, 1, cases.SIZE, cases.SIZE)
    assert torch.equal(batch["bleed"][0], batch["bleed"][1])
    assert (batch["hu"][0, 0, 0] == AIR_HU).all()
    assert torch.equal(batch["hu"][0, 0, 6:-6, columns:-columns], cut["hu"][0])
    grid = ServedGrid()(batch["hu"][:, 0], batch["pitch_mm"])
    head = grid[1] > -200
    assert head.sum() > 5000
    assert (grid[0] - grid[1])[head].abs().mean() < 1.0


def test_another_process_opens_studies_itself(physionet: PhysionetSource, tmp_path: Path) -> None:
    """What is sent to a loader's worker holds no study, and gives the same slices there."""
    cached = Cached(physionet, tmp_path / "cache")
    data = SliceDataset(cached, cached.entries())
    first = data[1]
    sent = pickle.dumps(data)
    assert len(sent) < 50_000
    batch = next(iter(DataLoader(pickle.loads(sent), batch_size=4, collate_fn=padded_batch)))  # noqa: S301  # our own
    assert torch.equal(batch["hu"][1], first["hu"])
