"""`triage data check`: what is wrong is found, named and weighed before anything is trained."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.test_training import data_cases as cases
from training.data.checks import SEVERITY, Report, Severity, check
from training.data.cli import app
from training.data.folder_in import FolderSource
from training.data.report import markdown
from training.data.splits import parts_of
from training.data.study import Entry, Facts, Fault, Study, Truth

LABELS = {1: True, 2: False, 3: True, 4: False, 5: True, 6: False}


def checked(folder: Path, **more: Any) -> Report:
    source = FolderSource(folder, folder / "labels.csv")
    return check(source, lambda entries: parts_of(entries, 1), name="here", **more)


def faults(report: Report, severity: Severity = Severity.ERROR) -> dict[Fault, list[str]]:
    found: dict[Fault, list[str]] = {}
    for finding in report.findings:
        if finding.severity is severity:
            found.setdefault(finding.fault, []).append(finding.file)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six good studies of six patients, half of them bleeding."""
    cases.write_folder(tmp_path, LABELS, slices=4)
    return tmp_path


def test_good_data_pass_and_are_described(folder: Path) -> None:
    """No finding of weight; what was read is counted."""
    report = checked(folder)
    assert report.passed
    assert faults(report) == {}
    assert (report.figures.studies, report.figures.slices, report.figures.patients) == (6, 24, 6)
    assert report.figures.labels["any"] == {"present": 3, "absent": 3}
    assert [row["patients"] for row in report.split] == [4, 1, 1]


def test_each_bad_study_is_named_and_the_others_are_still_read(folder: Path) -> None:
    """One run tells all that is wrong, not the first of it."""
    corrupt = folder / "study_1" / "IM0002.dcm"
    corrupt.write_bytes(corrupt.read_bytes()[:-100])
    hu = cases.head(3, 4)
    tags = {"StudyInstanceUID": f"{cases.PREFIX}.3", "SeriesInstanceUID": f"{cases.PREFIX}.3.1", "PatientID": "3"}
    windowed = cases.write_series(folder / "study_3", hu.clip(-15, 100), **tags)
    (folder / "study_5" / "IM0003.dcm").unlink()
    report = checked(folder)
    assert not report.passed
    assert faults(report) == {
        Fault.CORRUPT: [str(corrupt)],
        Fault.NOT_HU: [str(windowed[0])],
        Fault.MIXED_SPACING: [str(folder / "study_5" / "IM0002.dcm")],
    }
    assert (report.figures.studies, report.figures.unreadable) == (4, 2)


def test_a_fault_that_is_allowed_is_told_and_does_not_stop(folder: Path) -> None:
    """A site may know that its series have two thicknesses."""
    (folder / "study_5" / "IM0003.dcm").unlink()
    report = checked(folder, allowed=frozenset({Fault.MIXED_SPACING}))
    assert report.passed
    assert Fault.MIXED_SPACING in faults(report, Severity.WARNING)


def test_a_study_twice_under_two_patients_is_a_duplicate_and_a_leak(folder: Path) -> None:
    """Pixels tell what identifiers hide: the same head in training and test."""
    hu = cases.head(1, 4, bleeding=range(2, 4))
    uid = f"{cases.PREFIX}.7"
    cases.write_series(folder / "study_7", hu, StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", PatientID="other")
    rows = ["study_instance_uid,label,split"]
    rows += [f"{cases.PREFIX}.{n},{int(here)},train" for n, here in LABELS.items()]
    (folder / "labels.csv").write_text("\n".join([*rows, f"{uid},1,test"]) + "\n", "utf-8")
    report = checked(folder)
    assert faults(report) == {Fault.LEAK: [str(folder / "study_7")]}
    assert str(folder / "study_1") in report.findings[-1].sentence
    assert faults(report, Severity.WARNING)[Fault.DUPLICATE] == [str(folder / "study_7")]


def test_one_patient_on_both_sides_of_a_split_is_a_leak(folder: Path) -> None:
    """Two studies of one patient, one in training, one in test."""
    rows = ["study_instance_uid,label,patient,split"]
    parts = {1: "train", 2: "train", 3: "train", 4: "test", 5: "test", 6: "test"}
    rows += [f"{cases.PREFIX}.{n},{int(LABELS[n])},{'a' if n in (3, 4) else n},{parts[n]}" for n in LABELS]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", "utf-8")
    report = checked(folder)
    assert faults(report) == {Fault.LEAK: [str(folder / "study_4")]}


def test_our_own_split_never_leaks(folder: Path) -> None:
    """The same two studies of one patient without somebody else's split are kept together."""
    rows = ["study_instance_uid,label,patient"]
    rows += [f"{cases.PREFIX}.{n},{int(LABELS[n])},{'a' if n in (3, 4) else n}" for n in LABELS]
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", "utf-8")
    assert checked(folder).passed


def test_classes_that_are_empty_are_named(tmp_path: Path) -> None:
    """Nothing can be learned where only one answer is given."""
    cases.write_folder(tmp_path, {1: False, 2: False, 3: False})
    report = checked(tmp_path)
    assert faults(report) == {Fault.EMPTY_CLASS: ["here"]}
    assert "no study with a bleed" in report.findings[0].sentence


def test_missing_labels_and_patients_are_named(folder: Path) -> None:
    """A study that the table leaves out stops; one whose patient is not known is told."""
    lines = (folder / "labels.csv").read_text("utf-8").splitlines()
    (folder / "labels.csv").write_text("\n".join([*lines[:-1], "1.2.3,1"]) + "\n", "utf-8")
    uid = f"{cases.PREFIX}.2"
    tags = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": ""}
    files = cases.write_series(folder / "study_2", cases.head(2, 4), **tags)
    report = checked(folder)
    assert faults(report) == {Fault.LABEL_MISSING: [str(folder / "study_6")]}
    told = faults(report, Severity.WARNING)
    assert told[Fault.EMPTY] == [str(folder / "labels.csv")]
    assert told[Fault.PATIENT_UNKNOWN][0] in {str(file) for file in files}


class _Given:
    """A source of one study that a test made."""

    version = "given"

    def __init__(self, study: Study) -> None:
        self.study = study

    def entries(self) -> list[Entry]:
        return [Entry(self.study.uid, self.study.patient, "place", self.study.truth.any)]

    def doubts(self) -> tuple[()]:
        return ()

    def load(self, _entry: Entry) -> Study:
        return self.study


@pytest.mark.parametrize(
    ("truth", "pixel_mm", "fault"),
    [
        (Truth(any=False, masks=np.ones((4, 96, 96), np.uint8)), 2.4, Fault.LABEL_CONTRADICTION),
        (Truth(any=False, by_label={"mass": True}), 2.4, Fault.LABEL_CONTRADICTION),
        (Truth(any=False), 0.5, Fault.NOT_HEAD),
    ],
)
def test_a_study_at_odds_with_itself_is_named(truth: Truth, pixel_mm: float, fault: Fault) -> None:
    """Label against mask, label against kind, spacing against the size of a head."""
    z_mm = np.arange(4, dtype=np.float32)
    study = Study("1", "p", cases.head(1, 4), (5.0, pixel_mm, pixel_mm), z_mm, truth, Facts(), "given")
    report = check(_Given(study), lambda entries: {"all": entries}, name="here")
    assert [finding.file for finding in report.findings if finding.fault is fault] == ["place"]


def test_the_command_tells_people_and_machines_the_same(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Exit code, JSON on standard output, Markdown and JSON in files; no patient in any of them."""
    out = tmp_path_factory.mktemp("report")
    (folder / "study_5" / "IM0003.dcm").unlink()
    told = ["check", str(folder), "--csv", str(folder / "labels.csv"), "--report", str(out), "--json"]
    done = CliRunner().invoke(app, told)
    assert done.exit_code == 1
    printed = json.loads(done.stdout)
    assert printed == json.loads((out / "data_check.json").read_text("utf-8"))
    assert printed["passed"] is False
    text = (out / "data_check.md").read_text("utf-8")
    assert "Not fit for training: 1 errors" in text
    assert f"{folder.name}/study_5/IM0002.dcm" in text
    assert "synthetic" not in text + done.stdout
    done = CliRunner().invoke(app, [*told[:4], "--allow", "mixed_spacing"])
    assert done.exit_code == 0
    assert "Fit for training" in done.stdout


@pytest.mark.parametrize("layout", ["rsna", "cq500", "physionet"])
def test_the_command_reads_every_layout(tmp_path: Path, layout: str) -> None:
    """A whole set of each layout passes as it was made."""
    clean: list[frozenset[str]] = [frozenset()] * 3
    bleeding = [frozenset(), frozenset({"subdural", "subarachnoid", "intraventricular", "intraparenchymal"}), *clean]
    if layout == "rsna":
        cases.write_rsna(tmp_path, {"a": bleeding, "b": clean, "c": bleeding, "d": clean})
    elif layout == "cq500":
        every = dict.fromkeys(("ICH", "IPH", "IVH", "SDH", "SAH"), (1, 1, 1))
        cases.write_cq500(tmp_path, {1: every, 2: {}, 3: every, 4: {}})
    else:
        kinds = [["Subdural"], ["Subarachnoid"], ["Intraventricular"], ["Intraparenchymal"]]
        cases.write_physionet(tmp_path, {49: kinds, 50: [[]] * 4, 51: kinds, 52: [[]] * 4})
    done = CliRunner().invoke(app, ["check", str(tmp_path), "--layout", layout, "--json"])
    printed = json.loads(done.stdout)
    assert [finding for finding in printed["findings"] if finding["severity"] == "error"] == []
    assert done.exit_code == 0
    assert printed["figures"]["labels"]["any"] == {"present": 2, "absent": 2}


def test_wrong_options_are_usage_errors(tmp_path: Path) -> None:
    """Exit code 2 with what there is instead."""
    assert CliRunner().invoke(app, ["check", str(tmp_path), "--layout", "dicom"]).exit_code == 2
    assert CliRunner().invoke(app, ["check", str(tmp_path), "--allow", "everything"]).exit_code == 2


def test_the_report_keeps_a_table_whole_whatever_a_file_is_called(folder: Path) -> None:
    """A pipe in a name is no column."""
    (folder / "study_5").rename(folder / "study|5")
    (folder / "study|5" / "IM0003.dcm").unlink()
    (line,) = [line for line in markdown(checked(folder)).splitlines() if "mixed_spacing" in line]
    assert "study\\|5" in line


def test_the_page_names_every_fault_as_bad_as_it_is() -> None:
    """docs/data.md and the table of the checks say the same."""
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text("utf-8")
    rows = [line.split("|") for line in page.splitlines() if line.endswith(("| error |", "| warning |"))]
    told = {name.strip("` "): row[3].strip() for row in rows for name in row[1].split(",")}
    assert told == {fault.value: severity.value for fault, severity in SEVERITY.items()}
