"""What the demo sends: phantom heads with known truth, real DICOM of the pydicom package, or a folder of your own.

The same seed gives the same studies, UIDs and pixels included; another seed gives others, so that a second demo adds
new studies to a stack that still lives.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from contracts.errors import TriageError
from launch.phantom import PhantomStudy
from launch.phantom import studies as phantoms
from launch.phantom_in import shipped_heads
from launch.scanner_in import Image, NotSendable, files_under, image_in, image_of

TAKEN = datetime(2026, 1, 1, 8, 0)  # noqa: DTZ001 — DICOM dates carry no zone; fixed, so that a seed gives the same bytes
_ORDER_TAGS = ("StudyInstanceUID", "SeriesNumber", "SeriesInstanceUID", "InstanceNumber", "SOPInstanceUID")


class Truth(StrEnum):
    """What is known of a study before it is sent."""

    LESION = "lesion"
    CLEAN = "clean"
    OUT_OF_SCOPE = "out_of_scope"


@dataclass(frozen=True, slots=True)
class DemoStudy:
    """One study to send, in the order of its images. ``truth`` None: nobody knows."""

    study_instance_uid: str
    label: str
    truth: Truth | None
    images: tuple[Image, ...]


@dataclass(frozen=True, slots=True)
class _Real:
    file: str
    label: str
    truth: Truth | None


_REAL_MR = _Real("MR_small.dcm", "MR image (real)", Truth.OUT_OF_SCOPE)
_REAL_CT = _Real("J2K_pixelrep_mismatch.dcm", "one head CT slice (real)", None)


def default_studies(seed: int, count: int) -> Iterator[DemoStudy]:
    """A mix in the order of arrival: never first, unless it is alone, is a bleeding head.

    Of six: clean, real MR, bleeding, clean, real head CT slice, bleeding; beyond them clean and bleeding in turn.
    """
    heads = _Heads(seed, count)
    for kind in _kinds(count):
        yield _real(kind, seed) if isinstance(kind, _Real) else heads.next(kind)


def _kinds(count: int) -> list[Truth | _Real]:
    bleed, clean = Truth.LESION, Truth.CLEAN
    few: dict[int, list[Truth | _Real]] = {
        1: [bleed],
        2: [clean, bleed],
        3: [clean, _REAL_MR, bleed],
        4: [clean, _REAL_MR, bleed, _REAL_CT],
        5: [clean, _REAL_MR, bleed, clean, _REAL_CT],
    }
    full: list[Truth | _Real] = [clean, _REAL_MR, bleed, clean, _REAL_CT, bleed]
    return few.get(count) or full + [clean if nth % 2 == 0 else bleed for nth in range(count - len(full))]


class _Heads:
    """Phantoms by truth, each made when it is needed; one that comes before its turn waits."""

    def __init__(self, seed: int, count: int) -> None:
        self._made = phantoms(shipped_heads(), 2 * count, seed, TAKEN)  # both truths in turn: more than enough
        self._waiting: dict[Truth, deque[PhantomStudy]] = {Truth.LESION: deque(), Truth.CLEAN: deque()}

    def next(self, truth: Truth) -> DemoStudy:
        while not self._waiting[truth]:
            study = next(self._made)
            self._waiting[Truth(study.truth)].append(study)
        return _phantom(self._waiting[truth].popleft(), truth)


def _phantom(study: PhantomStudy, truth: Truth) -> DemoStudy:
    label = {Truth.LESION: "bleeding head (phantom)", Truth.CLEAN: "clean head (phantom)"}[truth]
    return DemoStudy(study.study_instance_uid, label, truth, tuple(image_of(image) for image in study.images))


def _real(real: _Real, seed: int) -> DemoStudy:
    """A file of the pydicom package with UIDs of this seed; pixels and encoding stay as they are."""
    path = get_testdata_file(real.file, download=False)
    if path is None:
        raise TriageError(f"the pydicom package here lacks {real.file}.")
    dataset = dcmread(str(path))
    _rename(dataset, seed)
    return DemoStudy(str(dataset.StudyInstanceUID), real.label, real.truth, (image_of(dataset),))


def _rename(dataset: FileDataset, seed: int) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        fresh = generate_uid(entropy_srcs=["lesion-triage demo", str(seed), str(dataset[keyword].value)])
        setattr(dataset, keyword, fresh)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID


def studies_in(folder: Path) -> tuple[list[DemoStudy], int]:
    """The studies of a folder, images by series and instance number; and how many files were no DICOM Part 10.

    Raises TriageError where there is none.
    """
    found: dict[str, list[tuple[tuple[int, str, int, str], Image]]] = {}
    left_out = 0
    for path, _ in files_under([folder]):
        try:
            uid, place = _place(path)
            found.setdefault(uid, []).append((place, image_in(path)))
        except NotSendable:
            left_out += 1
    if not found:
        raise TriageError(f"there is no DICOM file in {folder}.")
    return [_own(nth, uid, images) for nth, (uid, images) in enumerate(found.items(), 1)], left_out


def _own(nth: int, uid: str, images: list[tuple[tuple[int, str, int, str], Image]]) -> DemoStudy:
    ordered = sorted(images, key=lambda pair: pair[0])
    return DemoStudy(uid, f"study {nth}", None, tuple(image for _, image in ordered))


def _place(path: Path) -> tuple[str, tuple[int, str, int, str]]:
    """Study, and the image's place in it. Raises NotSendable."""
    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=list(_ORDER_TAGS))
        study, series_number, series, number, sop = (header.get(tag) or "" for tag in _ORDER_TAGS)
        place = (int(series_number or 0), str(series), int(number or 0), str(sop))
    except Exception as problem:
        # pydicom raises whatever a broken file leads to; all of it means the same: it cannot be sent.
        raise NotSendable("not a DICOM Part 10 file") from problem
    if not study:
        raise NotSendable("it names no study")
    return str(study), place
