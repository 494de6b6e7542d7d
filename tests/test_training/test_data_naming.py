"""What is written names no UID and no place outside the data's folder, and leads back to the study for who has it."""

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from launch.commands import app
from tests.test_training import data_cases as cases
from training.data.cache_out import Cached
from training.data.folder_in import FolderSource
from training.data.naming import hashed, named

LABELS = {1: True, 2: False, 3: True, 4: False, 5: None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five studies in folders named by UID, as an archive writes them; a label is missing, a file is damaged."""
    found = tmp_path_factory.mktemp("hospital") / "scans"
    cases.write_folder(found, LABELS)
    for number in LABELS:
        (found / f"study_{number}").rename(found / f"{cases.PREFIX}.{number}")
    victim = min((found / f"{cases.PREFIX}.2").glob("*.dcm"))
    victim.write_bytes(victim.read_bytes()[:-3000])
    return found


def triage(*words: object) -> Result:
    """As typed."""
    return CliRunner().invoke(app, list(map(str, words)))


def test_uids_are_hashed_wherever_they_stand_and_folders_are_cut_off() -> None:
    """Alone, in a file's name, behind a prefix; what only looks like numbers stays."""
    uid = "1.2.826.0.1.3680043.10.1559.7"
    folder = Path("/home/somebody/scans")
    told = named(f"{folder}/{uid}/CT.{uid}.dcm: {uid}, 2.5 mm, version 1.2.3", folder)
    assert told == f"scans/{hashed(uid)}/CT.{hashed(uid)}.dcm: {hashed(uid)}, 2.5 mm, version 1.2.3"


def test_a_check_writes_neither_uids_nor_places_outside_and_each_study_is_found_again(
    folder: Path, tmp_path: Path
) -> None:
    """In both files and on the terminal; `find` takes what they name and prints the true UID and place."""
    table = folder / "labels.csv"
    told = triage("data", "check", folder, "--csv", table, "--report", tmp_path)
    assert told.exit_code == 1
    written = [file.read_text("utf-8") for file in tmp_path.iterdir()]
    for text in (*written, told.stdout):
        assert cases.PREFIX not in text
        assert str(folder.parent) not in text
    name = hashed(f"{cases.PREFIX}.5")
    assert any(
        name in one["sentence"] for one in json.loads(written[0] if written[0][0] == "{" else written[1])["findings"]
    )
    for asked in (name, f"scans/{name}"):
        found = triage("data", "find", asked, folder, "--csv", table)
        assert found.stdout.split() == [f"{cases.PREFIX}.5", str(folder / f"{cases.PREFIX}.5")]
    assert triage("data", "find", "uid-0000000000", folder).exit_code == 1


def test_cached_studies_can_be_opened_by_nobody_else(folder: Path, tmp_path: Path) -> None:
    """Folders of patients' pixels are 0700, also where an older run has made the upper one for all."""
    (tmp_path / "studies").mkdir(mode=0o755)
    source = FolderSource(folder, folder / "labels.csv")
    Cached(source, tmp_path).load(source.entries()[0])
    made = [tmp_path / "studies", *(tmp_path / "studies").iterdir()]
    assert [stat.S_IMODE(one.stat().st_mode) for one in made] == [0o700] * 2
