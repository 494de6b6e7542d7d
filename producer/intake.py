"""One intake for all doors: the bytes and what the door announced → an accepted image, or Rejected with a reason."""

import re
from dataclasses import dataclass, field
from enum import StrEnum

from contracts.errors import Rejected
from contracts.events import Arrived
from contracts.findings import Patient
from contracts.names import Lane
from contracts.reasons import Reason
from contracts.scans import ScanHeaders
from producer.caps import DEFAULT, Caps, Take, take_freely
from producer.digests import GEOMETRY, pixel_digest
from producer.header import Header, data_set_digest, file_meta, read_header, unparsable
from producer.lanes import LaneFacts, Lanes

SOP_CLASS, SOP_INSTANCE = 0x00080016, 0x00080018
STUDY, SERIES = 0x0020000D, 0x0020000E
FRAMES, ROWS, COLUMNS = 0x00280008, 0x00280010, 0x00280011
SAMPLES, BITS_ALLOCATED = 0x00280002, 0x00280100
MODALITY, STUDY_DESCRIPTION, ACCESSION = 0x00080060, 0x00081030, 0x00080050
PATIENT = {"name": 0x00100010, "patient_id": 0x00100020, "issuer": 0x00100021, "birth_date": 0x00100030}
SEX = 0x00100040

TAGS = (
    *(SOP_CLASS, SOP_INSTANCE, STUDY, SERIES, FRAMES, ROWS, MODALITY, STUDY_DESCRIPTION, ACCESSION, SEX),
    *PATIENT.values(),
    *GEOMETRY,
)

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")  # PS3.5 9.1, less its rule on leading zeros, which senders break
_UID_LENGTH = 64


class Door(StrEnum):
    """Where an object came in; a metric label."""

    DICOM = "dicom"
    STOW = "stow"
    FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class Received:
    """One object at a door. What the door announced is empty where it announced nothing.

    ``source``: calling AE title, or the door's name. ``received_at``: epoch seconds. ``priority``: DIMSE's, in words.
    """

    part10: bytes = field(repr=False)
    door: Door
    source: str
    received_at: float
    traceparent: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    priority: str = ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What goes into the log. ``whole`` is false where the pixel data ends early or an image has none."""

    headers: ScanHeaders
    arrived: Arrived = field(repr=False)
    whole: bool


@unparsable()
def examine(received: Received, lanes: Lanes, caps: Caps = DEFAULT, take: Take = take_freely) -> Accepted:
    """Raises Rejected and nothing else. Looks at the bytes only: never decodes pixels, never changes anything.

    ``take`` is told of every byte that is held beyond those received, and may object with Rejected.
    """
    header = read_header(received.part10, TAGS, caps, take)
    frames = _frames(header, caps)
    _check_pixels(header, frames, caps)
    digest, whole = pixel_digest(header, caps)
    headers = _headers(received, header, digest, frames, lanes.choose(_facts(received, header)))
    _check_announced(received, headers)
    whole = whole and not header.cut_short and (header.pixels is not None or ROWS not in header.elements)
    return Accepted(headers, _arrived(received, header, headers), whole)


def identity(part10: bytes) -> tuple[str, str]:
    """SOP class and instance by File Meta, for the answer about a refused object; empty where unreadable."""
    try:
        meta = file_meta(part10)
    except Rejected:
        return "", ""
    return tuple(uid if is_uid(uid) else "" for uid in (meta.sop_class_uid, meta.sop_instance_uid))  # type: ignore[return-value]  # two in, two out


def is_uid(text: str) -> bool:
    """Whether it may become a key, a header or a path: digits and dots, at most 64 (PS3.5 9.1)."""
    return len(text) <= _UID_LENGTH and bool(_UID.fullmatch(text))


def _headers(received: Received, header: Header, digest: str, frames: int, lane: Lane) -> ScanHeaders:
    uids = {name: _uid(header, tag, name) for name, tag in _UIDS.items()}
    return ScanHeaders(
        **uids,
        transfer_syntax_uid=_syntax(header),
        digest=data_set_digest(received.part10, header.meta),
        pixel_digest=digest,
        source=received.source,
        received_at=received.received_at,
        traceparent=received.traceparent,
        size_bytes=len(received.part10),
        frames=frames,
        lane=lane,
    )


_UIDS = {
    "study_instance_uid": STUDY,
    "series_instance_uid": SERIES,
    "sop_instance_uid": SOP_INSTANCE,
    "sop_class_uid": SOP_CLASS,
}


def _uid(header: Header, tag: int, name: str) -> str:
    found = header.uid(tag)
    if not is_uid(found):
        raise Rejected(Reason.MISSING_UIDS, f"{name} {'malformed' if found else 'missing'}")
    return found


def _syntax(header: Header) -> str:
    if not is_uid(header.meta.transfer_syntax_uid):
        raise Rejected(Reason.UNPARSABLE, "TransferSyntaxUID malformed")
    return header.meta.transfer_syntax_uid


def _frames(header: Header, caps: Caps) -> int:
    try:
        frames = header.whole_number(FRAMES, absent=1)
    except ValueError:
        raise Rejected(Reason.UNPARSABLE, "NumberOfFrames is no number") from None
    if frames > caps.frames:
        raise Rejected(Reason.TOO_LARGE, "NumberOfFrames")
    return max(1, frames)


def _check_pixels(header: Header, frames: int, caps: Caps) -> None:
    """What is announced must be something that anybody could ever decode; scoring's own budgets are far below."""
    samples, bits = (header.short(tag) or absent for tag, absent in ((SAMPLES, 1), (BITS_ALLOCATED, 16)))
    frame_bytes = header.short(ROWS) * header.short(COLUMNS) * samples * ((bits + 7) // 8)
    if frame_bytes * frames > caps.pixel_bytes:
        raise Rejected(Reason.TOO_LARGE, "announced pixels")


def _facts(received: Received, header: Header) -> LaneFacts:
    calling = received.source if received.door is Door.DICOM else ""
    return LaneFacts(calling, header.text(MODALITY), header.text(STUDY_DESCRIPTION), received.priority)


def _check_announced(received: Received, headers: ScanHeaders) -> None:
    """The data set must be what the request said it is (PS3.4 B.2.3: 0xA900; PS3.18 10.5.2).

    File Meta of a file is not a request: tools edit the data set and forget it; the data set is what is scored.
    """
    checks = (
        (Reason.SOP_CLASS_MISMATCH, received.sop_class_uid, headers.sop_class_uid),
        (Reason.SOP_INSTANCE_MISMATCH, received.sop_instance_uid, headers.sop_instance_uid),
        (Reason.STUDY_MISMATCH, received.study_instance_uid, headers.study_instance_uid),
    )
    for reason, announced, found in checks:
        if announced not in ("", found):
            raise Rejected(reason)


def _arrived(received: Received, header: Header, headers: ScanHeaders) -> Arrived:
    return Arrived(
        study_instance_uid=headers.study_instance_uid,
        series_instance_uid=headers.series_instance_uid,
        sop_instance_uid=headers.sop_instance_uid,
        sop_class_uid=headers.sop_class_uid,
        at=received.received_at,
        pixel_digest=headers.pixel_digest,
        digest=headers.digest,
        traceparent=headers.traceparent,
        frames=headers.frames,
        lane=headers.lane,
        source=headers.source,
        patient=Patient(sex=header.text(SEX), **{name: header.text(tag) for name, tag in PATIENT.items()}),
        accession_number=header.text(ACCESSION),
        study_description=header.text(STUDY_DESCRIPTION),
        modality=header.text(MODALITY),
    )
