"""Every real file there is, through every door: scored, refused with a reason, or not analysed with a reason."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.data import get_testdata_files

from contracts.reasons import Category, Reason
from launch.scanner_in import NotSendable, image_in
from launch.scanner_out import Scanner, send_images
from tests.test_way import senders
from tests.test_way.stack import Stack, running_stack, wait_for

pytestmark = pytest.mark.filterwarnings("ignore")  # pydicom tells what is odd about its own files
SETTLE_S = 0.5  # a file unchanged that long is taken; ten times that before a broken one is judged
SERVICES = ("producer", "worker", "worklist")


@dataclass(frozen=True)
class Told:
    """What one door said of each file: None where it was stored, the reason or status where it was refused."""

    stored: frozenset[Path]
    refused: Mapping[Path, str]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Files of pydicom and of pydicom-data, as their wheels hold them."""
    found = sorted(Path(name) for name in get_testdata_files() if Path(name).is_file() and Path(name).stat().st_size)
    assert {"test_files", "data_store"} <= {part for path in found for part in path.parts}
    return found


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The watched folder."""
    return tmp_path_factory.mktemp("watched")


@pytest.fixture(scope="module")
def stack(watched: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One stack for all files."""
    folder = {"folder": watched, "folder_keep": "true", "folder_settle_s": SETTLE_S}
    settings = [word for name, value in folder.items() for word in ("--set", f"producer.{name}={value}")]
    with running_stack(tmp_path_factory.mktemp("stack"), *settings, "--set", "flagging.quiet_s=3") as running:
        yield running


@pytest.mark.stack
@pytest.mark.timeout(600)
def test_every_file_is_kept_or_refused_alike_at_every_door_and_what_is_kept_is_told(
    stack: Stack, files: list[Path], watched: Path
) -> None:
    """None hangs; the doors agree; each image that was kept is settled once, with an outcome or a reason."""
    at_association, at_stow = _by_association(stack, files), _by_stow(stack, files)
    in_folder = _by_folder(watched, files)
    _no_service_was_started_again(stack)
    assert at_stow.stored == in_folder.stored
    assert at_association.stored <= at_stow.stored
    assert len(at_association.stored) > 150
    assert len(at_stow.stored) > 150
    assert len(at_stow.refused) > 10
    kept = _instances(at_stow.stored)
    outcomes = _outcomes(stack, kept)
    assert sum(outcomes.values()) >= sum(map(len, kept.values())) > 60
    assert outcomes["scored"] >= 1
    _no_service_was_started_again(stack)
    assert not _faults(stack)


def _by_association(stack: Stack, files: Sequence[Path]) -> Told:
    """As a scanner sends files: each in its own context. What it cannot even announce is the sender's refusal."""
    images, refused = [], dict[Path, str]()
    for path in files:
        try:
            images.append(image_in(path))
        except NotSendable as problem:
            refused[path] = str(problem)
    answers = send_images(images, Scanner(*stack.dicom, "PYDICOM", "TRIAGE"))
    assert len(answers) == len(images)
    for answer in answers:
        assert answer.status is not None or "does not take" in answer.detail, f"{answer.image.name}: {answer.detail}"
    refused |= {Path(a.image.name): f"{a.status}: {a.detail}" for a in answers if not a.stored}
    return Told(frozenset(Path(answer.image.name) for answer in answers if answer.stored), refused)


def _by_stow(stack: Stack, files: Sequence[Path]) -> Told:
    """Each file as it is, DICOM or not, in a request of its own."""
    stored, refused = set(), dict[Path, str]()
    for path in files:
        answer = senders.stow(stack.addresses["stow"], [path])
        if answer.status_code == httpx.codes.OK:
            stored.add(path)
        else:
            assert answer.status_code in {400, 409, 413}, f"{path.name}: {answer.status_code} {answer.text}"
            assert answer.text
            refused[path] = answer.text
    return Told(frozenset(stored), refused)


def _by_folder(watched: Path, files: Sequence[Path]) -> Told:
    """Copied in under names of their own, as a modality's export would be."""
    names = {f"{number:04d}.dcm": path for number, path in enumerate(files)}
    for name, path in names.items():
        shutil.copyfile(path, watched / name)
    wait_for("an empty folder", lambda: not list(watched.glob("*.dcm")), within_s=240)
    stored = {names[path.name] for path in (watched / ".taken").glob("*.dcm")}
    told = {path.stem: json.loads(path.read_text()) for path in (watched / ".refused").glob("*.json")}
    refused = {names[name]: Reason(one["reason"]) for name, one in told.items()}
    assert stored | set(refused) == set(files)
    assert {reason.category for reason in refused.values()} == {Category.REFUSED}
    return Told(frozenset(stored), refused)


def _instances(stored: frozenset[Path]) -> dict[str, set[str]]:
    """Study → instances, as pydicom reads them."""
    kept: dict[str, set[str]] = {}
    for path in stored:
        data = pydicom.dcmread(path, specific_tags=["StudyInstanceUID", "SOPInstanceUID"], stop_before_pixels=True)
        kept.setdefault(str(data.StudyInstanceUID), set()).add(str(data.SOPInstanceUID))
    return kept


def _outcomes(stack: Stack, kept: Mapping[str, set[str]]) -> Counter[str]:
    """How the images ended, each study closed and told; fails where one is missing, or settled more than once."""
    outcomes: Counter[str] = Counter()
    for uid, instances in kept.items():
        study = wait_for(f"study {uid} told", partial(stack.closed, uid, len(instances)))
        assert study["state"] in {"flagged", "not_flagged", "not_analysed"}
        assert study["state"] != "not_analysed" or study["reason"]
        assert instances <= {image["sop_instance_uid"] for image in study["images"]}
        outcomes.update(_outcome(image) for image in study["images"])
    return outcomes


def _outcome(image: dict[str, Any]) -> str:
    assert image["settlements"] == 1, image
    assert image["outcome"] == "scored" or image["reason"], image
    return str(image["outcome"])


def _no_service_was_started_again(stack: Stack) -> None:
    for name in SERVICES:
        os.kill(stack.pid(name), 0)  # raises ProcessLookupError where it has ended


def _faults(stack: Stack) -> list[str]:
    """Errors that a guard caught and nobody expected, but for what is always said of a broker in memory."""
    pages = [httpx.get(url, timeout=10).text for url in stack.addresses["metrics"].values()]
    lines = [line for page in pages for line in page.splitlines() if line.startswith("triage_faults_total{")]
    return [line for line in lines if 'where="topics"' not in line]
