"""`triage evaluate` as a person meets it: exact keys, a report and a card of the same figures, folders, bad input."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contracts.findings import Label
from launch.commands import app
from tests.test_training import data_cases
from training.cli import cache_dir
from training.evaluation import cli as command
from training.evaluation import fresh
from training.evaluation.account import notice
from training.evaluation.figures import KEYS
from training.evaluation.operating_out import write_threshold
from training.onnx_in import OnnxModel
from training.phantom.atlas_in import Atlas
from training.slices_out import SliceTable

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "triton_models" / "head_ct_lesion"


def triage(*words: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    told = CliRunner().invoke(app, ["evaluate", *map(str, words)])
    return told.exit_code, told.stdout, told.stderr


@pytest.fixture(scope="module")
def produced(
    tmp_path_factory: pytest.TempPathFactory, phantom_folder: Path, atlas: Atlas
) -> tuple[Path, dict[str, object]]:
    """Two fresh studies, cut to a few slices, with everything; and what was printed."""
    folder, cache = tmp_path_factory.mktemp("report"), tmp_path_factory.mktemp("cache")
    for file in cache_dir().glob("atlas-*.npz"):  # made by the fixture
        shutil.copy(file, cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "SHIFTED", 1)
        patch.setattr(fresh, "LOWEST_MM", 5.0)
        patch.setattr(fresh, "HIGHEST_MM", 30.0)
        words = ("--tier", "S", "--seed", 3, "--studies", 2, "--json", "--report", folder)
        code, out, err = triage(*words, "--real", phantom_folder, "--cache", cache)
    assert code == 0, err
    return folder, json.loads(out)


@pytest.fixture(scope="module")
def phantom_folder(small_table: SliceTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared phantom heads as DICOM studies with labels.csv."""
    folder = tmp_path_factory.mktemp("folder")
    rows = ["study_instance_uid,label"]
    for nth, seed in enumerate(np.unique(small_table.head)):
        uid, at = f"{data_cases.PREFIX}.7{nth}", small_table.head == seed
        tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"synthetic-{nth}"}
        data_cases.write_series(folder / f"study_{nth}", small_table.hu[at], PixelSpacing=[1.1, 1.1], **tags)
        rows.append(f"{uid},{int((small_table.labels[at, 0] == 1).any())}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", "utf-8")
    return folder


def test_json_prints_exactly_the_seven_figures_and_the_baselines(produced: tuple[Path, dict[str, object]]) -> None:
    """Nothing else is on standard output: it is parsed whole."""
    _, told = produced
    assert list(told) == [*KEYS, "threshold_baseline"]
    assert isinstance(told["threshold_baseline"], dict)
    assert list(told["threshold_baseline"]) == list(KEYS)
    assert 0 <= told["image_auc"] <= 1  # type: ignore[operator]  # a number, or this fails


def test_report_and_card_are_of_the_same_figures_and_say_what_they_are(
    produced: tuple[Path, dict[str, object]], phantom_folder: Path
) -> None:
    """One page without anything from outside; the card's numbers are the JSON's; both say not for diagnosis."""
    folder, printed = produced
    told = json.loads((folder / "head_ct_lesion.evaluation.json").read_text("utf-8"))
    page = (folder / "head_ct_lesion.evaluation.html").read_text("utf-8")
    card = (folder / "head_ct_lesion.card.md").read_text("utf-8")
    for text in (page, card):
        assert notice(told["run"]["trained_on"]) in text
        assert f"{told['S']['network']['image_auc'][0]:.3f}" in text
    assert told["S"]["network"]["image_auc"][0] == pytest.approx(printed["image_auc"], abs=1e-4)
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page.replace("xlink:href", "href"))
    assert page.count("<svg") >= 6
    assert "FGSM" in page
    assert list(told["R"]) == [phantom_folder.name]
    assert told["run"]["brain_mask"] is True
    assert "The brain mask was asked" in card
    assert told["L"] is None
    assert "Not measured" in card


def test_a_labelled_folder_is_evaluated_and_without_labels_only_alarms_are_counted(phantom_folder: Path) -> None:
    """Tier L by the table; tier R of the same files knows no truth and tells none."""
    code, out, err = triage("--dicom", phantom_folder, "--csv", phantom_folder / "labels.csv", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert list(told) == [*KEYS, "threshold_baseline"]
    assert told["sensitivity"] is not None
    assert told["dice"] is None
    code, out, err = triage("--tier", "R", "--dicom", phantom_folder, "--json")
    assert code == 0, err
    assert json.loads(out)["readers"]["network"]["studies"] == 4


@pytest.mark.parametrize("pictures", [True, False])
def test_a_report_that_shows_patients_says_so_and_pictures_can_be_left_out(
    phantom_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, pictures: bool
) -> None:
    """On a labelled folder: a notice over slices of patients; without pictures neither. The mask can be left out."""
    monkeypatch.setattr(command, "SHIFTED", 0)
    monkeypatch.setattr(command.Evaluation, "tier_s", lambda self: self._folder(phantom_folder, None))
    words = ("--dicom", phantom_folder, "--csv", phantom_folder / "labels.csv", "--report", tmp_path)
    flags = () if pictures else ("--no-pictures", "--no-brain-mask")
    code, _, err = triage(*words, *flags)
    assert code == 0, err
    page = (tmp_path / "head_ct_lesion.evaluation.html").read_text("utf-8")
    assert ("shows slices of patients" in page) is pictures
    assert ("data:image/png" in page) is pictures
    told = json.loads((tmp_path / "head_ct_lesion.evaluation.json").read_text("utf-8"))
    assert told["run"]["brain_mask"] is pictures
    assert all(flag in told["run"]["command"] for flag in flags)
    assert ("--no-brain-mask" in page) is not pictures


def test_a_damaged_file_is_named_and_the_rest_is_judged(phantom_folder: Path, tmp_path: Path) -> None:
    """Cut short: one abstention with its file, three studies judged."""
    folder = tmp_path / "damaged"
    shutil.copytree(phantom_folder, folder)
    victim = min((folder / "study_1").glob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[:-5000])
    code, out, err = triage("--tier", "R", "--dicom", folder, "--json")
    assert code == 0, err
    assert f"damaged/{victim.parent.name}/{victim.name}" in err
    assert str(tmp_path) not in err
    assert json.loads(out)["readers"]["network"]["studies"] == 3


def test_what_cannot_be_done_is_a_sentence(tmp_path: Path) -> None:
    """Labels without images, a tier without its folder, an empty folder, a file that is no model."""
    table = tmp_path / "labels.csv"
    table.write_text("study_instance_uid,label\n1.2,1\n", "utf-8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.onnx").write_text("no graph", "utf-8")
    assert triage("--csv", table)[0] == 2
    assert triage("--tier", "L", "--studies", 1)[0] == 2
    for words, name in (
        (("--dicom", tmp_path / "empty", "--csv", table), "empty"),
        (("--model", tmp_path / "bad.onnx"), "bad.onnx"),
    ):
        code, _, err = triage(*words)
        assert code == 1
        assert name in err
        assert "Traceback" not in err


def test_an_operating_point_is_written_wherever_the_worker_reads_it(tmp_path: Path) -> None:
    """Graph, declaration and both configurations say the same afterwards, and nothing else has changed."""
    copy = tmp_path / "head_ct_lesion"
    shutil.copytree(MODEL, copy)
    before = OnnxModel(copy / "1" / "model.onnx").metadata
    write_threshold(copy / "1" / "model.onnx", Label.ANY.value, 0.6789)
    after = OnnxModel(copy / "1" / "model.onnx").metadata
    assert after == {**before, "threshold.any": "0.6789"}
    for file in ("config.pbtxt", "configs/cpu.pbtxt", "1/model.toml"):
        text = (copy / file).read_text("utf-8")
        assert "0.6789" in text, file
        assert before["threshold.any"] not in text, file


def test_an_operating_point_of_a_lone_graph_is_refused(tmp_path: Path) -> None:
    """Not a version of a repository: nothing would read it."""
    shutil.copy(MODEL / "1" / "model.onnx", tmp_path / "model.onnx")
    with pytest.raises(Exception, match=r"model\.toml"):
        write_threshold(tmp_path / "model.onnx", "any", 0.5)
