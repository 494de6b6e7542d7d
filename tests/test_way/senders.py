"""Senders that are not ours: DCMTK's storescu and Orthanc; and STOW as any HTTP client does it."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.servers.ports import free_port

# Without it delayed acknowledgements add 45 ms an image to every DCMTK and Orthanc process.
ENVIRONMENT = {**os.environ, "TCP_NODELAY": "1", "PATH": os.environ["PATH"] + ":/usr/sbin"}


def need(program: str) -> str:
    """The program's path; in CI a missing one is a failure, elsewhere a skip with the reason."""
    found = shutil.which(program, path=ENVIRONMENT["PATH"])
    if found is None and os.environ.get("CI"):
        pytest.fail(f"{program} is missing")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def storescu(
    to: tuple[str, int], files: Sequence[Path], *extra: str, called: str = "TRIAGE", calling: str = "CT1"
) -> subprocess.CompletedProcess[str]:
    """Sends the files over one association, each in its own transfer syntax; does not raise."""
    command = [need("storescu"), "-v", "-nh", "-R", "-aec", called, "-aet", calling, *extra, to[0], str(to[1])]
    return subprocess.run(
        [*command, *map(str, files)], env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )


def accepted(result: subprocess.CompletedProcess[str]) -> int:
    """How many images storescu says were answered with Success."""
    said = result.stdout + result.stderr
    return said.count("Received Store Response (Success)")


def stow(url: str, files: Sequence[Path]) -> httpx.Response:
    """One multipart/related request (PS3.18 §10.5)."""
    boundary = "triage-test-boundary"
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + path.read_bytes() + b"\r\n" for path in files) + f"--{boundary}--\r\n".encode()
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    address = url if url.rstrip("/").endswith("/studies") else url.rstrip("/") + "/studies"
    return httpx.post(address, content=body, headers={"Content-Type": kind}, timeout=120)


@dataclass
class Orthanc:
    """A running Orthanc that knows our producer as a modality."""

    url: str

    def send(self, files: Sequence[Path]) -> dict[str, object]:
        """Imports the files and stores them to us over DICOM; the job's answer."""
        ids = [
            httpx.post(f"{self.url}/instances", content=path.read_bytes(), timeout=60).raise_for_status().json()["ID"]
            for path in files
        ]
        body = {"Resources": ids, "Synchronous": True, "Timeout": 120}
        answer = httpx.post(f"{self.url}/modalities/triage/store", json=body, timeout=300).raise_for_status()
        job: dict[str, object] = answer.json()
        return job


@contextmanager
def running_orthanc(folder: Path, to: tuple[str, int]) -> Iterator[Orthanc]:
    """Orthanc on free loopback ports with its data in the folder."""
    http, dicom = free_port(), free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "Name": "TEST PACS",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [],
        "DicomModalities": {"triage": {"AET": "TRIAGE", "Host": to[0], "Port": to[1], "AllowTranscoding": False}},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen(
            [need("Orthanc"), str(folder / "orthanc.json")], env=ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        yield Orthanc(_answering(f"http://127.0.0.1:{http}", process))
    finally:
        process.terminate()
        process.wait(30)


def _answering(url: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(300):
        assert process.poll() is None, "Orthanc stopped"
        try:
            httpx.get(f"{url}/system", timeout=2).raise_for_status()
        except httpx.HTTPError:
            time.sleep(0.1)
        else:
            return url
    raise AssertionError("Orthanc did not answer")
