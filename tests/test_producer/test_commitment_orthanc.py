"""Orthanc asks for storage commitment, as an archive does before it deletes its own copy: its API, our reports."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.ports import free_port
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ct, part10
from tests.test_producer.running import wait_until
from tests.test_way.senders import ENVIRONMENT, need

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

MODALITY = "triage"


@contextmanager
def orthanc(folder: Path, http: int, dicom: int, to: tuple[str, int]) -> Iterator[str]:
    """Its HTTP address; it knows us by name."""
    settings = {
        "Name": "ARCHIVE",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "DicomModalities": {MODALITY: {"AET": "TRIAGE", "Host": to[0], "Port": to[1], "AllowTranscoding": False}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        command = [need("Orthanc"), str(folder / "orthanc.json")]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{http}"
    try:
        wait_until(lambda: answers(url) or process.poll() is not None, 60)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    """Whether it is up."""
    try:
        return httpx.get(f"{url}/system", timeout=2).is_success
    except httpx.HTTPError:
        return False


def asked(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """POST /modalities/{id}/storage-commitment, and the report once it is no longer pending."""
    answer = httpx.post(f"{url}/modalities/{MODALITY}/storage-commitment", json=body, timeout=60).raise_for_status()
    path = answer.json()["Path"]
    report: dict[str, Any] = {}

    def complete() -> bool:
        report.update(httpx.get(url + path, timeout=10).raise_for_status().json())
        return bool(report["Status"] != "Pending")

    wait_until(complete, 90)
    return report


def test_orthanc_is_told_what_it_may_delete(start: Start, tansu: str, tmp_path: Path) -> None:
    """Success for what it sent to us; Failure with 0x0112 for what it did not; it can then remove what is committed."""
    http, dicom = free_port(), free_port()
    images = [ct() for _ in range(3)]
    with (
        start(tansu, commitment_peers={"ORTHANC": f"127.0.0.1:{dicom}"}) as producer,
        orthanc(tmp_path, http, dicom, producer.dicom) as url,
    ):
        ids = [httpx.post(f"{url}/instances", content=part10(image), timeout=60).json()["ID"] for image in images]
        body = {"Resources": ids[:2], "Synchronous": True}
        httpx.post(f"{url}/modalities/{MODALITY}/store", json=body, timeout=60).raise_for_status()
        report = asked(url, {"Resources": ids[:2]})
        assert (report["Status"], report["RemoteAET"], report["Failures"]) == ("Success", "TRIAGE", [])
        assert {found["SOPInstanceUID"] for found in report["Success"]} == {i.SOPInstanceUID for i in images[:2]}
        report = asked(url, {"Resources": ids})
        assert report["Status"] == "Failure"
        (failure,) = report["Failures"]
        assert (failure["SOPInstanceUID"], failure["FailureReason"]) == (images[2].SOPInstanceUID, 0x0112)


def test_orthanc_stores_and_asks_in_one_step(start: Start, tansu: str, tmp_path: Path) -> None:
    """``"StorageCommitment": true`` of its store: the request follows the images at once."""
    http, dicom = free_port(), free_port()
    with (
        start(tansu, commitment_peers={"ORTHANC": f"127.0.0.1:{dicom}"}) as producer,
        orthanc(tmp_path, http, dicom, producer.dicom) as url,
    ):
        added = httpx.post(f"{url}/instances", content=part10(ct()), timeout=60).json()["ID"]
        body = {"Resources": [added], "Synchronous": True, "StorageCommitment": True}
        job = httpx.post(f"{url}/modalities/{MODALITY}/store", json=body, timeout=60).raise_for_status().json()
        path = f"/storage-commitment/{job['StorageCommitmentTransactionUID']}"
        wait_until(lambda: httpx.get(url + path, timeout=10).json()["Status"] == "Success", 90)
