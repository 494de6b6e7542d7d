"""What a software scanner sends: DICOM Part 10 files and data sets, as they are, without re-encoding."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_preamble
from pydicom.uid import UID

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"  # Media Storage Directory Storage: about files, never sent (PS3.10 8.6)
_META_GROUP = 0x0002  # PS3.10 7.1


class NotSendable(Exception):
    """A file that is no DICOM Part 10 instance; the message says why, never what is in it."""


class Unreadable(NotSendable):
    """The file cannot be opened: it may well be an image."""


class IsDirectoryRecord(NotSendable):
    """A DICOMDIR: rightly left out."""


@dataclass(frozen=True, slots=True)
class Image:
    """One instance to send. ``load`` gives the data set's bytes as they are, without preamble and File Meta."""

    name: str
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    load: Callable[[], bytes]

    def payload(self) -> bytes:
        """The data set as it goes onto the wire: a deflated stream of odd length gets its NULL byte (PS3.5 A.5)."""
        loaded = self.load()
        odd = len(loaded) % 2 == 1 and UID(self.transfer_syntax_uid).is_deflated
        return loaded + b"\0" if odd else loaded

    @property
    def context(self) -> tuple[str, str]:
        """Abstract and transfer syntax of the presentation context it needs."""
        return (self.sop_class_uid, self.transfer_syntax_uid)


def image_of(dataset: Dataset | bytes, name: str = "") -> Image:
    """From a data set (written once, in its own transfer syntax) or the bytes of a Part 10 file."""
    part10 = dataset if isinstance(dataset, bytes) else _written(dataset)
    meta, offset = _meta(BytesIO(part10))
    return _image(name, meta, lambda: part10[offset:])


def image_in(path: Path) -> Image:
    """From a file, read when it is sent. Raises NotSendable; Unreadable where it cannot be opened."""
    try:
        with path.open("rb") as file:
            meta, offset = _meta(file)
    except OSError as problem:
        raise Unreadable(problem.strerror or type(problem).__name__) from None
    return _image(str(path), meta, partial(_rest, path, offset))


def files_under(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """Every file of files and folders, folders in order of names; with whether it was named itself."""
    for path in paths:
        if not path.is_dir():
            yield path, True
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from ((Path(folder, name), False) for name in sorted(names))


def _written(dataset: Dataset) -> bytes:
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def _rest(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def _meta(file: BinaryIO) -> tuple[Dataset, int]:
    """The File Meta group, and where the data set begins."""
    try:
        read_preamble(file, force=False)
        meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_beyond_meta)
    except Exception as problem:
        # pydicom raises whatever a broken length leads to; all of it means the same: no Part 10 file.
        raise NotSendable("not a DICOM Part 10 file") from problem
    return meta, file.tell()


def _beyond_meta(tag: Any, _vr: str | None, _length: int) -> bool:
    return bool(tag.group != _META_GROUP)


def _image(name: str, meta: Dataset, load: Callable[[], bytes]) -> Image:
    needed = ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")
    values = [str(meta.get(keyword) or "") for keyword in needed]
    if values[0] == DICOMDIR_CLASS:
        raise IsDirectoryRecord("a DICOMDIR is not sent")
    if not all(values):
        raise NotSendable("its File Meta lacks " + ", ".join(k for k, v in zip(needed, values, strict=True) if not v))
    sop_class, sop_instance, transfer_syntax = values
    return Image(name, sop_class, sop_instance, transfer_syntax, load)
