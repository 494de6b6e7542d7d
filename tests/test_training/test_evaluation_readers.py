"""Readers and tiers: the grid laid back on the slice, the service's limits, seeds, models that are none, BLAST-CT."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from training.cli import DEFAULT_CONFIG
from training.data.study import BadStudy, Entry, Facts, Study, Truth
from training.evaluation import fresh, scope
from training.evaluation.blast_in import BlastCt, isotropic, onto_slices
from training.evaluation.grid import Grid, centres_mm, measured, on_slice, packed
from training.evaluation.measure import dice
from training.evaluation.network_in import BadModel, Network
from training.evaluation.robustness import against, blurred, noisy, turned
from training.evaluation.threshold import HuThreshold
from training.evaluation.tiers import Plan, evaluate
from training.preprocess import GRID_PITCH_MM, GRID_SIZE, ServedGrid
from training.recipe_in import load_recipe
from worker.scoring.routing import HEAD_CT

SHIPPED = Path(__file__).parents[2] / "triton_models" / "head_ct_lesion" / "1" / "model.onnx"


def head(*, bleed_hu: float = 70.0, slices: int = 4, spacing_mm: tuple[float, float, float] = (5.0, 0.9, 1.1)) -> Study:
    """A ring of bone around brain, off the middle, with a disc of blood in all slices but the first."""
    y, x = np.mgrid[:200, :180].astype(float)
    y, x = (y - 110) * spacing_mm[1], (x - 80) * spacing_mm[2]
    plain = np.where(np.hypot(x, y) < 65, 35.0, np.where(np.hypot(x, y) < 72, 900.0, -1000.0))
    blood = np.hypot(x - 20, y + 10) < 13
    masks = np.repeat(blood[None], slices, 0).astype(np.uint8)
    masks[0] = 0
    hu = np.where(masks > 0, bleed_hu, plain[None]).astype(np.int16)
    z_mm = (np.arange(slices) * spacing_mm[0]).astype(np.float32)
    return Study("1.2.3", "p", hu, spacing_mm, z_mm, Truth(any=True, masks=masks), Facts(), "test")


def within(radius_mm: float, spacing_mm: tuple[float, ...]) -> NDArray[np.bool_]:
    """Of the middle of that head."""
    y, x = np.mgrid[:200, :180].astype(float)
    return np.asarray(np.hypot((y - 110) * spacing_mm[0], (x - 80) * spacing_mm[1]) < radius_mm)


def test_the_grid_laid_back_on_the_slice_is_where_the_graph_put_it() -> None:
    """A mask through the served grid and back covers itself: centre, pitch and anisotropic pixels agree."""
    study = head()
    spacing = study.spacing_mm[1:]
    hu = torch.from_numpy(study.hu[1:2].astype(np.float32))
    grid = ServedGrid()
    both = torch.tensor([spacing], dtype=torch.float32)
    with torch.no_grad():
        served = grid(hu, both).numpy()
        brain = (served > 60) & (served < 100)  # the disc on the grid, as the graph sees it
    laid = on_slice(
        brain.astype(np.float32),
        Grid(GRID_SIZE, GRID_PITCH_MM),
        centres_mm(study.hu[1:2], spacing)[0],
        spacing,
        (200, 180),
    )[0]
    inside = (
        np.hypot(*(np.mgrid[:200, :180] - np.array([110, 80])[:, None, None]) * np.array(spacing)[:, None, None]) < 60
    )
    assert study.truth.masks is not None
    assert dice((laid > 0.5) & inside, study.truth.masks[1] > 0) > 0.93


def test_areas_and_centroids_are_measured_as_scoring_measures_them() -> None:
    """Square millimetres, and millimetres from the middle; nothing marked has no centroid."""
    mask = np.zeros((2, 9, 9), bool)
    mask[0, 6:8, 4:6] = True
    area, centroid = measured(mask, (2.0, 2.0))
    assert area.tolist() == [16, 0]
    assert centroid[0].tolist() == [5.0, 1.0]
    assert np.isnan(centroid[1]).all()
    assert packed(mask)[6, 4] == 1


def test_the_limits_told_here_are_the_services() -> None:
    """What evaluation abstains from is what scoring refuses, number by number."""
    pairs = (
        (scope.SPACING_MM, HEAD_CT.spacing_mm),
        (scope.FIELD_OF_VIEW_MM, HEAD_CT.field_of_view_mm),
        (scope.THICKNESS_MM, HEAD_CT.thickness_mm),
        (scope.MATRIX, HEAD_CT.matrix),
    )
    assert all(here == (there.low, there.high) for here, there in pairs)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"spacing_mm": (5.0, 1.5, 1.1)}, "pixel spacing"),
        ({"spacing_mm": (15.0, 0.9, 1.1)}, "thickness"),
        ({"spacing_mm": (5.0, 0.5, 0.5)}, "field of view"),
        ({"hu": np.zeros((4, 100, 180), np.int16)}, "matrix"),
    ],
)
def test_a_study_out_of_scope_is_an_abstention_with_its_reason(change: dict[str, object], word: str) -> None:
    """Each limit speaks for itself; the plain head passes."""
    assert scope.refusal(head()) is None
    assert word in str(scope.refusal(replace(head(), **change)))  # type: ignore[arg-type]  # fields by name


def test_seeds_of_evaluation_never_meet_seeds_of_training() -> None:
    """No shipped recipe reaches the seeds that evaluation begins at, and two evaluation seeds share no head."""
    for config in DEFAULT_CONFIG.parent.glob("*.toml"):
        recipe = load_recipe(config)
        assert all(s.first_seed + s.heads < fresh.FIRST_SEED for s in recipe.sets.values()), config
    first, second = ({one.seed for one in fresh.draw(seed, 200)} for seed in (0, 1))
    assert not first & second
    assert min(first | second) >= fresh.FIRST_SEED


def test_every_study_with_a_lesion_holds_out_a_lesion_or_a_scanner_family() -> None:
    """Tier S is by definition another seed and another family; half have a lesion; the seed decides everything."""
    drawn = fresh.draw(7, 101)
    assert drawn == fresh.draw(7, 101)
    assert sum(one.sick for one in drawn) == 51
    assert all(one.new_scanner or one.new_lesions for one in drawn if one.sick)
    assert {one.tags["held out"] for one in drawn} == {
        *("scanner", "lesion family", "scanner and lesion family", "seed only")
    }
    with pytest.raises(ValueError, match="studies are possible"):
        fresh.draw(-1, 3)


class _Two:
    """One study that can be read and one that cannot."""

    def entries(self) -> list[Entry]:
        return [Entry("1", "a", "a.dcm", True), Entry("2", "b", "b.dcm", False)]

    def load(self, entry: Entry) -> Study:
        if entry.uid == "2":
            raise BadStudy("b.dcm", "is cut short")
        return head()


def test_a_bad_study_is_told_by_its_file_and_the_others_are_judged() -> None:
    """An abstention is counted, never dropped; the threshold finds the plain bleed of the good one."""
    outcome = evaluate(_Two(), Plan(readers=(HuThreshold(),), pictures=True))
    assert [(one.place, one.unreadable) for one in outcome.refused] == [("b.dcm", True)]
    (told,) = outcome.judged["HU threshold"]
    assert told.dice is not None
    assert told.dice > 0.85
    assert told.score > 0.7
    assert told.found(0.5) == (True,)
    assert outcome.shown[0].truth is not None


def test_shifts_change_pixels_and_keep_truth_in_place() -> None:
    """Noise, blur and turning are what they say; the turned mask lies on the turned bleed."""
    study = head()
    assert np.std(noisy(study, 8.0).hu[study.hu == 35] - 35) == pytest.approx(8, rel=0.05)
    assert blurred(study, 2.0).hu.max() < study.hu.max()
    around = turned(study, 10.0)
    assert around.truth.masks is not None
    assert np.median(around.hu[around.truth.masks > 0]) == pytest.approx(70, abs=1)


class _Sum(torch.nn.Module):
    """A network whose logit is the mean HU: its gradient is known."""

    def forward(self, hu: torch.Tensor, _spacing: torch.Tensor) -> torch.Tensor:
        return hu.mean((1, 2))[:, None].repeat(1, 6)


def test_the_adversary_moves_tissue_against_the_truth_and_no_farther_than_it_may() -> None:
    """Slices with a lesion get darker, those without brighter, by at most eps; bone and air stay."""
    study = head()
    moved = against(study, _Sum(), 3.0).hu.astype(int) - study.hu
    assert set(np.unique(moved[0]).tolist()) == {0, 3}
    assert set(np.unique(moved[1]).tolist()) == {0, -3}
    assert (moved[study.hu == 900] == 0).all()
    assert np.abs(against(study, None, 3.0).hu.astype(int) - study.hu).max() == 3


def _other_graph(file: Path, outputs: tuple[str, str], metadata: dict[str, str]) -> Path:
    """A graph that answers nothing of use."""
    hu = helper.make_tensor_value_info("HU", TensorProto.FLOAT16, ["N", "H", "W"])
    spacing = helper.make_tensor_value_info("PIXEL_SPACING", TensorProto.FLOAT, ["N", 2])
    told = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in outputs]
    nodes = [helper.make_node("Identity", ["PIXEL_SPACING"], [name]) for name in outputs]
    graph = helper.make_graph(nodes, "g", [hu, spacing], told)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    helper.set_model_props(model, metadata)
    onnx.save(model, file)
    return file


def test_what_is_no_model_of_ours_is_refused_by_name(tmp_path: Path) -> None:
    """Not ONNX, other tensors, no grid, no operating points: each a sentence with the file."""
    (tmp_path / "text.onnx").write_text("not a graph", "utf-8")
    ours = ("PROBABILITIES", "SEGMENTATION")
    cases = {
        tmp_path / "text.onnx": "not an ONNX model",
        _other_graph(tmp_path / "other.onnx", ("A", "B"), {}): "tensors are",
        _other_graph(tmp_path / "grid.onnx", ours, {}): "grid_size",
        _other_graph(tmp_path / "points.onnx", ours, {"grid_size": "144", "grid_pitch_mm": "1.6"}): "threshold",
    }
    for file, word in cases.items():
        with pytest.raises(BadModel, match=word) as told:
            Network(file)
        assert str(file) in str(told.value)


def test_the_shipped_model_reads_a_plain_bleed() -> None:
    """Probabilities, marks and areas of one study, in the contract's shapes, the mark on the bleed."""
    study = head()
    told = Network(SHIPPED).read(study)
    assert told.measures.probabilities.shape == (4, 6)
    assert told.marks.shape == study.hu.shape
    assert study.truth.masks is not None
    on, off = told.marks[1:][study.truth.masks[1:] > 0] > 0, told.marks[0] > 0
    assert on.mean() > 0.5
    assert off.mean() < 0.01


class _Blood(torch.nn.Module):
    """What BLAST-CT would say if blood were whatever is dense but not bone: blocks of 155 mm in, 75 mm out."""

    def forward(self, block: torch.Tensor) -> torch.Tensor:
        inner = block[:, :, 40:-40, 40:-40, 40:-40]
        blood = ((inner > 0.2) & (inner < 0.9)).float()
        return torch.cat([1 - blood, blood, *[torch.zeros_like(blood)] * 3], 1)


def test_blast_ct_sees_every_millimetre_once_and_its_marks_return_to_the_slices() -> None:
    """Blocks tile the head without seam, and 1 mm voxels come back onto 5 mm slices."""
    study = head(slices=24)
    reader = BlastCt.__new__(BlastCt)
    reader._network = _Blood()
    classes = reader.classes(isotropic(study))
    marks = onto_slices(classes == 1, study)
    assert study.truth.masks is not None
    rim = (
        np.hypot(*(np.mgrid[:200, :180] - np.array([110, 80])[:, None, None]) * np.array([0.9, 1.1])[:, None, None])
        > 60
    )
    assert dice(marks & ~rim, study.truth.masks > 0) > 0.93


@pytest.mark.skipif(not os.environ.get("TRIAGE_BLAST_CT"), reason="no BLAST-CT weights are given (TRIAGE_BLAST_CT)")
def test_blast_ct_itself_marks_a_phantom_bleed() -> None:
    """The public network, where its weights are at hand, agrees with the truth of a plain bleed."""
    study = head(slices=20)
    told = BlastCt(Path(os.environ["TRIAGE_BLAST_CT"])).read(study)
    assert study.truth.masks is not None
    assert dice(told.marks > 0, study.truth.masks > 0) > 0.5
