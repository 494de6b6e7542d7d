"""Senders: pynetdicom for one object and its status, DCMTK's storescu as the scanner."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom import _config as pynetdicom_config

from tests.test_producer.objects import part10


@contextmanager
def association(address: tuple[str, int], *contexts: tuple[str, str], **titles: str) -> Iterator[Any]:
    """An association with those (SOP class, transfer syntax) pairs; released at the end."""
    entity = AE(ae_title=titles.get("calling", "SCANNER"))
    for sop_class, syntax in contexts:
        entity.add_requested_context(sop_class, syntax)
    peer = entity.associate(*address, ae_title=titles.get("called", "ANY-SCP"))
    try:
        yield peer
    finally:
        if peer.is_established:
            peer.release()


def store(address: tuple[str, int], payload: bytes, **options: Any) -> int:
    """The status that one object gets on an association of its own."""
    image = dcmread(BytesIO(payload))
    with association(address, (image.SOPClassUID, image.file_meta.TransferSyntaxUID)) as peer:
        assert peer.is_established
        return status_of(peer, payload, **options)


def status_of(peer: Any, payload: bytes, **options: Any) -> int:
    """The status of one more object on an open association."""
    return int(peer.send_c_store(dcmread(BytesIO(payload)), **options).Status)


@contextmanager
def unchanged(folder: Path) -> Iterator[Any]:
    """``send(peer, bytes) -> status``: pynetdicom sends the encoded data set of a file without decoding it."""
    before, pynetdicom_config.STORE_SEND_CHUNKED_DATASET = pynetdicom_config.STORE_SEND_CHUNKED_DATASET, True

    def send(peer: Any, payload: bytes) -> int:
        path = folder / "as-is.dcm"
        path.write_bytes(payload)
        return int(peer.send_c_store(path).Status)

    try:
        yield send
    finally:
        pynetdicom_config.STORE_SEND_CHUNKED_DATASET = before


def files(folder: Path, images: Sequence[Any]) -> list[Path]:
    """The images as files."""
    paths = [folder / f"{number}.dcm" for number, _ in enumerate(images)]
    for path, image in zip(paths, images, strict=True):
        path.write_bytes(part10(image))
    return paths


def storescu(address: tuple[str, int], paths: Sequence[Path], *options: str) -> subprocess.Popen[str]:
    """DCMTK's sender, started."""
    program = shutil.which("storescu")
    if program is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("DCMTK's storescu is not installed")
    return subprocess.Popen(
        [str(program), *options, address[0], str(address[1]), *map(str, paths)],
        env=os.environ | {"TCP_NODELAY": "1"},  # without it delayed acknowledgements cost 45 ms an image
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
