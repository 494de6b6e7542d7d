"""What would reach a file store, and disks that are full, fail, or are not there: nothing acknowledged is lost."""

import errno
import json
import os
import platform
import struct
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from contracts.errors import PeerAway, PeerBusy
from contracts.hooks import Happening
from producer.payload_out import PayloadStore
from tests.test_producer.conftest import Start
from tests.test_producer.objects import ELF_HEAD, PE_HEAD, TIFF_HEAD, beginning_with, bomb, ct, files_below, part10
from tests.test_producer.running import Running, wait_until, written
from tests.test_producer.senders import store
from tests.test_producer.test_stow import post

pytestmark = [pytest.mark.stack, pytest.mark.filterwarnings("ignore")]

OUT_OF_RESOURCES = 0xA700


BASE, ANSWER = 0x400000, 42
CODE = b"\xbf" + ANSWER.to_bytes(4, "little") + b"\xb8\x3c\0\0\0\x0f\x05"  # x86-64: exit(42)


def polyglot(rows: int = 16) -> bytes:
    """Valid DICOM that Linux runs: ELF and program header take 120 of the 128 bytes, the code is a private value."""
    image = ct(Rows=rows, Columns=100, PixelData=bytes(200 * rows))
    image.add_new(0x00090010, "LO", "POLYGLOT")
    image.add_new(0x00091001, "OB", CODE + bytes(len(CODE) % 2))
    whole = part10(image)
    at = whole.index(CODE)
    head = b"\x7fELF\2\1\1".ljust(16, b"\0") + struct.pack(
        "<HHLQQQLHHHHHH", 2, 0x3E, 1, BASE + at, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    load = struct.pack("<LLQQQQQQ", 1, 5, 0, BASE, BASE, len(whole), len(whole), 0x1000)
    return beginning_with((head + load).ljust(128, b"\0"), whole)


def windows() -> bytes:
    """Valid DICOM behind the head of a program of Windows."""
    return beginning_with(PE_HEAD, part10(ct()))


def runs(path: Path) -> int | None:
    """The exit code of a file that is run; None where the system sees no program in it."""
    path.chmod(0o700)
    try:
        return subprocess.run([path], check=False).returncode
    except OSError:
        return None


def kinds(producer: Running) -> list[dict[str, str]]:
    """What was told of programs."""
    return producer.hooks.labels_of(Happening.EXECUTABLE)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is one for x86-64")
def test_a_real_polyglot_is_dicom_and_runs(tmp_path: Path) -> None:
    """The test's own object is what it claims to be: pydicom reads it, and Linux runs it. In the store it does not."""
    payload = polyglot()
    (tmp_path / "image.dcm").write_bytes(payload)
    assert dcmread(tmp_path / "image.dcm").Modality == "CT"
    assert runs(tmp_path / "image.dcm") == ANSWER
    kept = Path(PayloadStore((tmp_path / "store").as_uri()).put(payload).removeprefix("file://"))
    assert dcmread(kept).Modality == "CT"
    assert runs(kept) is None


def test_a_program_is_counted_and_reaches_no_store_while_the_log_keeps_the_data_set(
    start: Start, tansu: str, tmp_path: Path
) -> None:
    """By STOW, large enough for the claim check, small enough for a record; TIFF is let be."""
    large, small, tiff = polyglot(100), windows(), beginning_with(TIFF_HEAD, part10(ct(PixelData=bytes(20_000))))
    payload = {"url": tmp_path.as_uri(), "inline_limit_bytes": 5_000, "min_free_bytes": 0}
    with start(tansu, payload=payload) as producer:
        assert post(producer, [large, small, tiff]).status_code == 200
        log = written(producer.settings, 3)
        assert kinds(producer) == [{"door": "stow", "kind": "elf"}, {"door": "stow", "kind": "pe"}]
    kept = {Path(scan.headers.claim.removeprefix("file://")).read_bytes() for scan in log.scans if scan.headers.claim}
    assert kept == {bytes(128) + large[128:], tiff}
    assert [scan.payload for scan in log.scans if not scan.headers.claim] == [small]


def test_a_program_in_the_folder_is_disarmed_where_it_is_kept(start: Start, tansu: str, tmp_path: Path) -> None:
    """In ``.taken/`` and in ``.refused/``; nothing but the preamble changes."""
    good, bad = windows(), beginning_with(ELF_HEAD, bomb(300 * 1024**2))
    with start(tansu, folder=str(tmp_path), folder_settle_s=0.2, folder_keep=True) as producer:
        (tmp_path / "good.dcm").write_bytes(good)
        (tmp_path / "bad.dcm").write_bytes(bad)
        wait_until((tmp_path / ".taken" / "good.dcm").exists, 30)
        wait_until((tmp_path / ".refused" / "bad.dcm").exists, 30)
        assert {told["kind"] for told in kinds(producer)} == {"pe", "elf"}
        assert written(producer.settings, 1).scans[0].payload == good
    assert (tmp_path / ".taken" / "good.dcm").read_bytes() == bytes(128) + good[128:]
    assert (tmp_path / ".refused" / "bad.dcm").read_bytes() == bytes(128) + bad[128:]
    assert json.loads((tmp_path / ".refused" / "bad.dcm.json").read_text())["reason"] == "too_large"


def test_a_folder_takes_files_and_nothing_else(start: Start, tansu: str, tmp_path: Path) -> None:
    """A pipe would never end, a link may lead anywhere: both are left alone, and the next file is taken."""
    outside = tmp_path / "outside.dcm"
    outside.write_bytes(part10(ct()))
    folder = tmp_path / "in"
    folder.mkdir()
    os.mkfifo(folder / "pipe.dcm")
    (folder / "link.dcm").symlink_to(outside)
    for number in range(6):
        os.mkfifo(folder / f"pipe{number}.dcm")
    with start(tansu, folder=str(folder), folder_settle_s=0.2) as producer:
        (folder / "good.dcm").write_bytes(part10(ct()))
        wait_until(lambda: not (folder / "good.dcm").exists(), 30)
        assert len(written(producer.settings, 1).scans) == 1
    assert outside.exists()
    assert (folder / "link.dcm").is_symlink()


def test_a_folder_that_cannot_keep_goes_on_watching(
    start: Start, tansu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``.refused`` cannot be written: that is a fault, told again and again, and the next good file is taken."""
    original = Path.write_text

    def full(self: Path, *args: object, **options: object) -> int:
        if ".refused" in self.parts:
            raise OSError(errno.ENOSPC, "no space left on device")
        return original(self, *args, **options)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Path, "write_text", full)
    with start(tansu, folder=str(tmp_path), folder_settle_s=0.1) as producer:
        (tmp_path / "bad.dcm").write_bytes(b"junk")
        wait_until(lambda: {"where": "folder"} in producer.hooks.labels_of(Happening.FAULT), 30)
        (tmp_path / "good.dcm").write_bytes(part10(ct()))
        wait_until(lambda: not (tmp_path / "good.dcm").exists(), 30)
        assert (tmp_path / "bad.dcm").exists()
        monkeypatch.undo()
        wait_until((tmp_path / ".refused" / "bad.dcm").exists, 30)


def test_a_disk_with_too_little_room_takes_nothing(start: Start, tansu: str, tmp_path: Path) -> None:
    """0xA700 before it is full: no file, no record; what fits a record is taken all the same."""
    room = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    payload = {"url": (tmp_path / "store").as_uri(), "inline_limit_bytes": 5_000, "min_free_bytes": room}
    large, small = part10(ct(PixelData=bytes(20_000))), part10(ct())
    with start(tansu, payload=payload) as producer:
        assert store(producer.dicom, large) == OUT_OF_RESOURCES
        assert store(producer.dicom, small) == 0
        answer = post(producer, [large])
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert {"door": "dicom", "reason": "store_away"} in producer.hooks.labels_of(Happening.REFUSED)
        assert producer.service.peers()["payload"] == "full"
        assert len(written(producer.settings, 1).scans) == 1
    assert files_below(tmp_path / "store") == []


@pytest.mark.parametrize("failing", [1, 2, 3, 4])
def test_a_sync_that_fails_is_no_acknowledgement(
    start: Start, tansu: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    """Of the file, of its folder, of the store, of what holds the store: 0xA700, no record, no half file is left."""
    calls: list[int] = []
    sync = os.fsync

    def broken(handle: int) -> None:
        calls.append(handle)
        if len(calls) == failing:
            raise OSError(errno.EIO, "input/output error")
        sync(handle)

    payload = {"url": (tmp_path / "store").as_uri(), "inline_limit_bytes": 5_000, "min_free_bytes": 0}
    image = part10(ct(PixelData=bytes(20_000)))
    with start(tansu, payload=payload) as producer:
        monkeypatch.setattr(os, "fsync", broken)
        assert store(producer.dicom, image) == OUT_OF_RESOURCES
        monkeypatch.undo()
        assert written(producer.settings, 0, patience_s=1).scans == []
        assert store(producer.dicom, image) == 0
        assert len(written(producer.settings, 1).scans) == 1
    assert list((tmp_path / "store").rglob("*.part")) == []


def test_what_fails_in_the_store_is_told_as_a_peers_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full while it is written, and one that has too little room before."""

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PeerAway):
        PayloadStore(tmp_path.as_uri()).put(b"x" * 100)
    monkeypatch.undo()
    with pytest.raises(PeerBusy):
        PayloadStore(tmp_path.as_uri(), 1 << 62).put(b"x" * 100)
    assert files_below(tmp_path) == []
