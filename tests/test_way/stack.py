"""The embedded stack as a user starts it: ``triage local --json``, and nothing but the addresses it prints."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

READY_S = 180.0  # cold start of Java, Triton and the services on two busy cores
WAIT_S = 120.0  # longest wait for something to come true; nothing here measures speed


@dataclass
class Stack:
    """A running stack: addresses, pids, and the public interfaces as a user has them."""

    process: subprocess.Popen[str]
    addresses: dict[str, Any]
    log: Path

    @property
    def dicom(self) -> tuple[str, int]:
        """Host and port of the C-STORE door."""
        host, _, port = str(self.addresses["dicom"]).rpartition(":")
        return host, int(port)

    def get(self, path: str, **params: str | int) -> httpx.Response:
        """GET from the worklist."""
        return httpx.get(self.addresses["worklist"].rstrip("/") + path, params=params, timeout=30)

    def worklist(self) -> dict[str, Any]:
        """The whole list, all pages, in reading order."""
        answer: dict[str, Any] = self.get("/v1/worklist", limit=1000).raise_for_status().json()
        while answer.get("next"):
            page = self.get("/v1/worklist", limit=1000, cursor=answer["next"]).raise_for_status().json()
            answer = {**page, "items": answer["items"] + page["items"]}
        return answer

    def study(self, uid: str) -> dict[str, Any] | None:
        """One study, or None while it is unknown or the view is being rebuilt."""
        answer = self.get(f"/v1/studies/{uid}")
        return answer.json() if answer.status_code == 200 else None

    def closed(self, uid: str, images: int) -> dict[str, Any] | None:
        """The study once that many images are settled and it has closed."""
        study = self.study(uid)
        done = study is not None and study["images_settled"] >= images and study["closed"]
        return study if done else None

    def pid(self, part: str) -> int:
        """The process of one part now (a restarted part has another)."""
        return int(self.addresses["pids"][part])


def wait_for(what: str, poll: Callable[[], T | None], within_s: float = WAIT_S) -> T:
    """Polls until the answer is neither None nor false; fails with ``what`` otherwise."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if answer := poll():
            return answer
        time.sleep(0.2)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


def settled_once(study: dict[str, Any], sops: set[str]) -> None:
    """Every image that got Success is there and settled exactly once."""
    rows = {image["sop_instance_uid"]: image for image in study["images"]}
    assert set(rows) == sops
    assert {uid: row["settlements"] for uid, row in rows.items()} == dict.fromkeys(sops, 1)
    assert all(row["outcome"] for row in rows.values())


@contextmanager
def running_stack(folder: Path, *arguments: str, **environment: str) -> Iterator[Stack]:
    """Starts ``triage local --json``, yields when it has printed its line, stops it with SIGTERM."""
    log = folder / "stack.log"
    command = [sys.executable, "-m", "launch.cli", "local", "--json", "--dir", str(folder / "state"), *arguments]
    with log.open("w") as sink, (folder / "addresses.json").open("w") as told:
        process = subprocess.Popen(command, stdout=told, stderr=sink, text=True, env={**os.environ, **environment})
    try:
        yield Stack(process, _addresses(process, folder / "addresses.json", log), log)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()


def _addresses(process: subprocess.Popen[str], told: Path, log: Path) -> dict[str, Any]:
    end = time.monotonic() + READY_S
    while not told.read_text().endswith("\n"):
        assert process.poll() is None, f"the stack stopped:\n{log.read_text()[-4000:]}"
        assert time.monotonic() < end, f"the stack was not ready:\n{log.read_text()[-4000:]}"
        time.sleep(0.1)
    (line,) = told.read_text().splitlines()  # exactly one line
    addresses: dict[str, Any] = json.loads(line)
    return addresses
