"""What is told where little can be: of a record that nobody can read, of an event that the log refuses. Pure."""

from contracts.events import NotAnalysed, Scored
from contracts.reasons import Reason
from worker.scoring.analysis import Event, scan_place
from worker.scoring.custody import Fetched

_UID_CHARACTERS = set("0123456789.")
_UID_LENGTH = 64  # PS3.5 9.1; a digest in hex is as long
_IDENTITY = ("series_instance_uid", "sop_instance_uid", "pixel_digest")


def unreadable_event(record: Fetched, at: float) -> NotAnalysed | None:
    """As much of the image's identity as the headers still tell; None where the key is no UID."""
    study = record.key.decode("ascii", "replace")
    if not 0 < len(study) <= _UID_LENGTH or not set(study) <= _UID_CHARACTERS:
        return None
    told = {name: value.decode("ascii", "replace") for name, value in record.headers if value}
    identity = {name: told.get(name, "") for name in _IDENTITY}
    return NotAnalysed(
        study_instance_uid=study, **identity, at=at, reason=Reason.RECORD_UNREADABLE, scan=scan_place(record.place)
    )


def smallest(event: Event) -> NotAnalysed:
    """That the image is not analysed, and no more: what is no identity is left out, however long it is."""
    identity = {name: value for name in _IDENTITY if len(value := getattr(event, name)) <= _UID_LENGTH}
    return NotAnalysed(
        study_instance_uid=event.study_instance_uid,
        **(dict.fromkeys(_IDENTITY, "") | identity),
        at=event.at,
        frame=event.frame,
        frames=event.frames,
        reason=Reason.RECORD_UNREADABLE if isinstance(event, Scored) else event.reason,
        scan=event.scan,
    )
