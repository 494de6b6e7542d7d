"""`triage train` from recipe to report, small; and the demo's heads."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from contracts.errors import TriageError
from tests.test_training.data_cases import PIXEL_MM, PREFIX, head, image, write, write_folder, write_rsna, write_series
from training.cli import app
from training.demo_out import FIRST_SEED, STEPS_HU, _coarse, _suitable
from training.fit.data import Unfit
from training.fit.loop_out import Fitted
from training.fit.start_out import made
from training.onnx_in import OnnxModel
from training.origin_in import checked_name, trained_on
from training.phantom.atlas_in import Atlas
from training.phantom.hosts import inside_of
from training.recipe_in import load_recipe
from training.run_out import Run

NAMED = "CPAISD, CC BY 4.0"
RSNA = '[data]\nlayout = "rsna"\npath = "rsna"'
ROOT = Path(__file__).parents[2]
TINY = """
name = "head_ct_lesion"
false_alarm_share = 0.1
[fit]
seed = 1
epochs = 1
batch_size = 4
learning_rate = 1e-3
weight_decay = 0.01
widths = [8, 8, 8, 8]
budget_s = 600.0
"""
SET = """
[sets.{name}]
first_seed = {seed}
heads = 3
slices_per_head = 3
lesion_share = 0.7
difficulty = [0.0, 0.3]
"""


@pytest.fixture(scope="module")
def produced(tmp_path_factory: pytest.TempPathFactory, atlas: Atlas) -> Path:
    """One whole tiny run: models/ and reports/ of it."""
    folder = tmp_path_factory.mktemp("run")
    sets = ((name, 6_000_000 + 100 * n) for n, name in enumerate(("train", "validation", "hard", "held_out")))
    recipe = TINY + "".join(SET.format(name=name, seed=seed) for name, seed in sets)
    (folder / "tiny.toml").write_text(recipe, "utf-8")
    told = ["--config", "tiny.toml", "--cache", "cache", "--models", "models", "--reports", "reports"]
    absolute = ["--studies", "2"] + [str(folder / part) if nth % 2 else part for nth, part in enumerate(told)]
    done = CliRunner().invoke(app, absolute, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder


def test_a_run_writes_a_graph_whose_thresholds_stand_in_both_configurations(produced: Path) -> None:
    """Scoring reads operating points from Triton's configuration: they are those of this very graph."""
    model = produced / "models" / "head_ct_lesion"
    metadata = OnnxModel(model / "1" / "model.onnx").metadata
    assert metadata["trained_on"] == "synthetic"
    for config in ("config.pbtxt", "configs/cpu.pbtxt"):
        text = (model / config).read_text("utf-8")
        for key, value in metadata.items():
            assert f'key: "{key}" value {{ string_value: "{value}" }}' in text


def test_a_run_writes_a_report_with_intervals_and_the_baseline(produced: Path) -> None:
    """Figures stand beside the HU threshold's and say what they are uncertain by; real scans are not invented."""
    text = (produced / "reports" / "head_ct_lesion.md").read_text("utf-8")
    figures = json.loads((produced / "reports" / "head_ct_lesion.json").read_text("utf-8"))
    assert "Not for diagnosis" in text
    assert "not measured" in text
    for judged in figures["synthetic"].values():
        assert len(judged["auc"]) == len(judged["auc_hu_threshold"]) == 3
    assert (produced / "reports" / "head_ct_lesion_roc.png").stat().st_size > 1000


def test_a_run_ends_with_a_card_from_studies_of_its_own(produced: Path) -> None:
    """The page, the figures and the card stand beside the report; the card says what it was made from."""
    reports = produced / "reports"
    assert "triage evaluate --seed 0 --studies 2" in (reports / "head_ct_lesion.card.md").read_text("utf-8")
    assert json.loads((reports / "head_ct_lesion.evaluation.json").read_text("utf-8"))["S"]
    assert (reports / "head_ct_lesion.evaluation.html").stat().st_size > 10_000


def test_recipes_are_compared_over_seeds_and_nothing_is_fitted_twice(produced: Path) -> None:
    """Two recipes with two seeds and one with one make a row each; a second call trains nothing."""
    (produced / "cold.toml").write_text('base = "tiny.toml"\nfit.weight_decay = 0.1\n', "utf-8")
    (produced / "warm.toml").write_text('base = "tiny.toml"\nfit.warm_up = 0.5\n', "utf-8")
    told = ["--config", "tiny.toml", "--cache", "cache", "--reports", "reports", "ablate", "tiny.toml", "warm.toml"]
    absolute = [str(produced / part) if nth not in {0, 2, 4, 6} else part for nth, part in enumerate(told)]
    times = []
    for _ in range(2):
        done = CliRunner().invoke(
            app, [*absolute, "--seeds", "2", "--once", str(produced / "cold.toml")], catch_exceptions=False
        )
        assert done.exit_code == 0, done.output
        fits = (produced / "cache" / "fits").glob("*.pt")
        times.append({file.name: file.stat().st_mtime_ns for file in fits})
    assert len(times[0]) == 5
    assert times[0] == times[1]
    lines = (produced / "reports" / "ablation.md").read_text("utf-8").splitlines()
    rows = [line for line in lines if line.startswith(("| tiny | 2 |", "| warm | 2 |", "| cold | 1 |"))]
    assert len(rows) == 3
    assert all("–" in row for row in rows if "| 2 |" in row)
    figures = json.loads((produced / "reports" / "ablation.json").read_text("utf-8"))["trials"]
    assert [(one["option"], one["seed"]) for one in figures] == [
        ("tiny", 1),
        ("tiny", 2),
        ("warm", 1),
        ("warm", 2),
        ("cold", 1),
    ]
    assert all(0 <= one["held_out.auc"] <= 1 for one in figures)


def experiment(produced: Path, name: str, lines: str) -> Run:
    """A recipe over the tiny one, on its cache."""
    file = produced / f"{name}.toml"
    file.write_text(f'base = "tiny.toml"\n{lines}\n', "utf-8")
    console = Console(record=True, width=200)
    return Run(load_recipe(file), produced / "cache", produced / "models", produced / "reports", console, file)


def test_real_data_are_learned_from_beside_phantoms_and_split_by_patient(produced: Path) -> None:
    """Studies in a public layout: in training and in calibration, no patient in both; the fit is one of its own."""
    kinds = [frozenset(), frozenset({"any", "subdural"}), frozenset(), frozenset()]
    write_rsna(produced / "rsna", {f"{nth}": kinds if nth % 2 else [frozenset()] * 4 for nth in range(1, 9)})
    run = experiment(produced, "real", '[data]\nlayout = "rsna"\npath = "rsna"\nallow = ["empty_class"]')
    parts = {part: run.slices(part) for part in ("train", "validation")}
    phantoms = len(run.table("train").hu)
    assert len(parts["train"]) > phantoms
    patients = [{entry.patient for entry in part.datasets[1].studies} for part in parts.values()]  # type: ignore[union-attr]
    assert patients[0]
    assert not patients[0] & patients[1]
    served = run.fitted()
    assert np.isfinite(served.scale.numpy()).all()
    plain = load_recipe(produced / "tiny.toml")
    assert run.checkpoint != dataclasses.replace(run, recipe=plain, tables={}).checkpoint


def test_studies_without_labels_are_learned_from(produced: Path) -> None:
    """A folder of DICOM without a table shapes the network first and teaches it during the fit."""
    write_folder(produced / "unlabelled", {1: None, 2: None})
    lines = 'fit.unlabelled = "unlabelled"\nfit.pretrain = "masked"\nfit.pretrain_epochs = 1\nfit.pseudo = "threshold"'
    run = experiment(produced, "unlabelled_too", lines)
    done = run.trained()
    assert np.isfinite(done.losses).all()
    assert "pre-trained (masked)" in run.console.export_text()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('fit.pseudo = "threshold"\nfit.unlabelled = "nowhere"', "nowhere"),
        ('[data]\nlayout = "rsna"\npath = "nowhere"', "nowhere"),
        ('fit.teacher = "nowhere.toml"', r"nowhere\.toml"),
    ],
)
def test_data_that_are_not_there_are_named(lines: str, told: str, produced: Path) -> None:
    """Before a step is made."""
    with pytest.raises((TriageError, ValueError), match=told):
        experiment(produced, "missing", lines).trained()


def test_a_student_learns_from_a_teacher_that_is_trained_first(produced: Path) -> None:
    """The teacher's recipe is run where its weights are not there yet, and found the second time."""
    teacher = 'fit.network = "teacher"\nfit.widths = [8, 8, 8]'
    (produced / "big.toml").write_text(f'base = "tiny.toml"\n{teacher}\n', "utf-8")
    run = experiment(produced, "small", 'fit.teacher = "big.toml"')
    assert np.isfinite(run.trained().losses).all()
    assert "the teacher first" in run.console.export_text()
    again = experiment(produced, "small", 'fit.teacher = "big.toml"\nfit.distil = 0.9')
    again.trained()
    assert "the teacher first" not in again.console.export_text()


def test_two_processes_bring_back_losses_and_time(produced: Path) -> None:
    """Weights, epochs, losses and time of a fit over two processes stand in its file and are told."""
    run = experiment(produced, "two", "fit.processes = 2\nfit.epochs = 2")
    done = run.trained()
    assert done.epochs == len(done.losses) == 2
    assert np.isfinite(done.losses).all()
    assert done.spent_s > 0
    again = run.trained()
    assert (again.epochs, again.losses, again.spent_s) == (done.epochs, done.losses, done.spent_s)
    assert "2 epochs: loss" in run.console.export_text()


def test_a_fit_that_its_budget_ended_says_so(produced: Path) -> None:
    """On the console, and in what is kept of it."""
    run = experiment(produced, "hurried", "fit.epochs = 3\nfit.budget_s = 0.001")
    assert run.trained().out_of_time
    assert run.trained().out_of_time
    assert "2 epochs early" in run.console.export_text()


def test_a_second_run_draws_nothing_again(produced: Path) -> None:
    """What is in the cache is not made again: file times stay."""
    files = sorted((produced / "cache").rglob("*.npz"))
    before = [file.stat().st_mtime_ns for file in files]
    told = ["--config", str(produced / "tiny.toml"), "--cache", str(produced / "cache"), "slices"]
    assert CliRunner().invoke(app, told, catch_exceptions=False).exit_code == 0
    assert len(files) > 12
    assert [file.stat().st_mtime_ns for file in files] == before


def test_an_unreadable_recipe_is_a_usage_error(tmp_path: Path) -> None:
    """Exit status 2 and a sentence, no traceback."""
    (tmp_path / "bad.toml").write_text("name = 1", "utf-8")
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "bad.toml")])
    assert done.exit_code == 2


def test_the_shipped_demo_head_is_what_its_seed_renders(atlas: Atlas) -> None:
    """The asset comes from the command that its record names: head 0, drawn again, is the head in the file."""
    record = json.loads((ROOT / "launch" / "demo_heads.json").read_text("utf-8"))
    first = record["heads"][0]
    assert first["seed"] >= FIRST_SEED
    slices, seed = _suitable(atlas, first["lesion"], first["seed"])
    assert seed == first["seed"]
    with np.load(ROOT / "launch" / "demo_heads.npz") as stored:
        shipped = stored["head_0"]
    differs = np.abs(shipped.astype(int) - _coarse(slices.hu)) > 0
    assert differs.mean() < 0.002, STEPS_HU  # another machine's rounding may cross a step


def test_a_second_fit_learns_from_bleeds_planted_in_real_slices(produced: Path) -> None:
    """It starts with the first fit's weights, on its slices and the hosts'; the graph says what it was trained on."""
    host = produced / "hosts"
    host.mkdir()
    run = experiment(
        produced,
        "hosted",
        "[hosts]\nfirst_seed = 1\npictures = 8\nlesion_share = 0.5\n"
        "mimic_share = 0.5\nleast_contrast_hu = 0.0\nepochs = 1\nlearning_rate = 1e-3",
    )
    brains = [plane for plane in run.table("hard").hu if inside_of(plane.astype(np.float32), 1.1) is not None]
    Image.fromarray(np.clip(brains[0], 0, 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)).save(host / "a.png")
    with pytest.raises(Unfit, match=r"1 of its slices are among the --hosts"):
        run.second(host, NAMED, (host,))
    second = run.second(host, NAMED)
    write_folder(produced / "another", {1: False})
    second.apart((produced / "another", None))
    with pytest.raises(Unfit, match=r"1 of its slices are among the --hosts"):
        second.apart((None, host))
    assert len(second.slices("train")) == len(run.slices("train")) + 8
    assert len(second.slices("validation")) == len(run.slices("validation"))
    assert second.checkpoint != run.checkpoint
    second.exported(second.fitted())
    assert run.checkpoint.exists()
    metadata = OnnxModel(produced / "models" / "head_ct_lesion" / "1" / "model.onnx").metadata
    assert metadata["trained_on"] == f"synthetic bleeds, in phantoms and in 1 real slices without any ({NAMED})"
    told = second.evaluated(None, None)["run"]
    assert told["first"]["epochs"] == told["epochs"] == 1
    assert told["training_slices"] == len(run.table("train").hu)
    with pytest.raises(Unfit, match=r"is trained on .*see --hosts"):
        run.evaluated(None, None)
    with pytest.raises(Unfit, match=r"no table \[hosts\]"):
        experiment(produced, "hostless", "").second(host, NAMED)
    went_on = experiment(produced, "went_on", f'fit.start_from = "{second.checkpoint}"')
    assert went_on.trained_on == f"synthetic, after weights trained on {metadata['trained_on']}"
    with pytest.raises(Unfit, match="among the --hosts"):
        went_on.apart((None, host))


@pytest.mark.parametrize("named", ["", "  ", "two\nlines", "x" * 121, 'a "quote"', "back\\slash"])
def test_hosts_are_named_in_one_plain_line(named: str, tmp_path: Path) -> None:
    """The words stand in the graph and in Triton's configurations; without any nothing is read."""
    with pytest.raises(Unfit, match="--hosts-named"):
        checked_name(named)
    done = CliRunner().invoke(app, ["--hosts", str(tmp_path), "--hosts-named", named])
    assert isinstance(done.exception, Unfit)


@pytest.mark.parametrize(
    ("lines", "hosts", "begun", "told"),
    [
        ("", 0, {}, "synthetic"),
        ("", 2, {}, "synthetic bleeds, in phantoms and in 2 real slices without any (ours)"),
        (RSNA, 0, {}, "real studies with labels (layout rsna), and phantoms"),
        (f"{RSNA}\nphantoms = false", 0, {}, "real studies with labels (layout rsna)"),
        (
            f"{RSNA}\nphantoms = false",
            2,
            {},
            "real studies with labels (layout rsna), and synthetic bleeds, in 2 real slices without any (ours)",
        ),
        ('fit.unlabelled = "x"\nfit.pseudo = "threshold"', 0, {}, "real scans without labels, and synthetic"),
        ("", 0, {"weights": "real studies"}, "weights trained on real studies, then synthetic"),
        ("", 0, {"a teacher": ""}, "a teacher trained on what nobody says, then synthetic"),
        ("", 0, {"a teacher": "synthetic"}, "synthetic"),
    ],
)
def test_a_model_says_synthetic_first_only_where_no_real_bleed_was_learned_from(
    lines: str, hosts: int, begun: dict[str, str], told: str, produced: Path
) -> None:
    """The service shows it: data, hosts, and what first weights and teachers say of themselves."""
    recipe = experiment(produced, "origin", lines).recipe
    assert trained_on(recipe, hosts, "ours", begun) == told


def test_a_fit_on_real_data_alone_is_calibrated_on_them(produced: Path) -> None:
    """Public data say nothing of masses: their clean slices are clean all the same."""
    slices = [frozenset(), frozenset({"any", "subdural"}), frozenset(), frozenset()]
    write_rsna(produced / "rsna_alone", {f"{nth}": slices for nth in range(1, 7)})
    data = RSNA.replace('"rsna"\npath = "rsna"', '"rsna"\npath = "rsna_alone"')
    run = experiment(produced, "rsna_alone", f'{data}\nphantoms = false\nallow = ["empty_class"]')
    assert np.isfinite(run.fitted().scale.numpy()).all()
    assert run.calibration.scale[5] == 1.0


def test_the_split_that_data_come_with_is_kept_and_its_test_part_judged(produced: Path) -> None:
    """By whole studies, for the report's tier L."""
    labels = {nth: nth % 2 == 0 for nth in range(1, 11)}
    table = write_folder(produced / "labelled", dict.fromkeys(labels, False))
    parts = ("train", "train", "train", "train", "validation", "validation", "test", "test", "test", "test")
    rows = [f"{PREFIX}.{nth},{int(sick)},{part}" for (nth, sick), part in zip(labels.items(), parts, strict=True)]
    table.write_text("\n".join(["study_instance_uid,label,split", *rows]), "utf-8")
    for nth in range(7, 11):  # finer: what the service would refuse is not judged
        uid = f"{PREFIX}.{nth}"
        tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"synthetic-{nth}"}
        fine = head(nth).repeat(2, 1).repeat(2, 2)
        write_series(produced / "labelled" / f"study_{nth}", fine, PixelSpacing=[PIXEL_MM / 2] * 2, **tags)
    data = '[data]\nlayout = "folder"\npath = "labelled"\nlabels = "labelled/labels.csv"\nphantoms = false'
    run = experiment(produced, "alone", data)
    found = [[entry.uid for entry in run.data().of(part)] for part in ("train", "validation", "test")]
    assert list(map(len, found)) == [4, 2, 4]
    told = run._held_out()
    assert (told["studies"], told["with_lesion"]) == (4, 2)
    assert told["threshold_baseline"].keys() < told.keys()


def test_data_that_do_not_pass_the_check_are_not_learned_from(produced: Path) -> None:
    """The file and the rule are named before anything is drawn; a rule that is allowed by name is told of instead."""
    write_folder(produced / "broken", {nth: nth % 2 == 0 for nth in range(1, 9)})
    uids = {"StudyInstanceUID": f"{PREFIX}.3", "SeriesInstanceUID": f"{PREFIX}.3.1"}
    write(produced / "broken" / "study_3" / "IM0001.dcm", image(head(3)[5], 5, RescaleSlope=None, **uids))
    told = '[data]\nlayout = "folder"\npath = "broken"\nlabels = "broken/labels.csv"'
    with pytest.raises(Unfit, match=r"not_hu: .*study_3.*RescaleSlope.*data\.allow = \["):
        experiment(produced, "broken_data", told).slices("train")
    run = experiment(produced, "broken_data", f'{told}\nallow = ["not_hu", "corrupt", "label_missing"]')
    assert len(run.data().source.entries()) >= 8
    assert "not_hu" in run.console.export_text()


def test_a_recipe_without_a_set_ends_before_anything_is_drawn(tmp_path: Path) -> None:
    """The command needs four; each that is missing is named."""
    (tmp_path / "tiny.toml").write_text(TINY + SET.format(name="train", seed=1), "utf-8")
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "tiny.toml"), "--cache", str(tmp_path / "cache")])
    assert isinstance(done.exception, Unfit)
    assert "no sets.validation, no sets.hard, no sets.held_out" in str(done.exception)
    assert not (tmp_path / "cache").exists()


def test_a_fit_that_tells_no_loss_is_kept_all_the_same(produced: Path) -> None:
    """The checkpoint is written last: where it is there, the fit is finished."""
    run = experiment(produced, "silent", "fit.seed = 99")
    run._keep(Fitted(made(run.settings), 0, 0.0, []))
    assert run.trained().losses == []
