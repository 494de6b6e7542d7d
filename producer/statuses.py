"""Outcome → what the sender is told: DICOM status (PS3.4 B.2.3, PS3.7 C), STOW failure reason (PS3.18 I.2.2), folder.

======================  ========  ==========================================================================
outcome                 status    meaning in PS3.4 table B.2-1
======================  ========  ==========================================================================
stored, duplicate       0x0000    success: scan and ``arrived`` acknowledged by every in-sync replica
broker, store away      0xA700    refused: out of resources; the sender may send again
memory, disk or buffer  0xA700    refused: out of resources
too many, too slow      0xA700    refused: out of resources; most of these never get as far as a status
SOP class or instance   0xA900    error: data set does not match SOP class
other study (STOW)      0xA901    same family: the data set does not match the request
unreadable, no UIDs     0xC000    error: cannot understand
nested or split too far 0xC000    error: cannot understand
larger than a limit     0xC000    error: the same bytes are refused for ever; 0xA700 would have them sent for ever
not on a list           0x0124    refused: not authorised (PS3.7 C.5.25); C-STORE peers never get that far
======================  ========  ==========================================================================
"""

from collections.abc import Sequence

from contracts.reasons import Reason

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110  # PS3.7 C.5.20: a fault of ours

STATUS_OF: dict[Reason, int] = {
    Reason.UNPARSABLE: CANNOT_UNDERSTAND,
    Reason.MISSING_UIDS: CANNOT_UNDERSTAND,
    Reason.SOP_CLASS_MISMATCH: 0xA900,
    Reason.SOP_INSTANCE_MISMATCH: 0xA900,
    Reason.STUDY_MISMATCH: 0xA901,
    Reason.TOO_LARGE: CANNOT_UNDERSTAND,
    Reason.TOO_COMPLEX: CANNOT_UNDERSTAND,
    Reason.NOT_ALLOWED: 0x0124,
    Reason.BROKER_AWAY: OUT_OF_RESOURCES,
    Reason.BUFFER_FULL: OUT_OF_RESOURCES,
    Reason.TOO_MANY: OUT_OF_RESOURCES,
    Reason.TOO_SLOW: OUT_OF_RESOURCES,
    Reason.PROTOCOL: CANNOT_UNDERSTAND,
    Reason.STORE_AWAY: OUT_OF_RESOURCES,
}

# Nothing is wrong with the object: the same bytes may be taken later.
TEMPORARY = frozenset({Reason.BROKER_AWAY, Reason.BUFFER_FULL, Reason.STORE_AWAY})

HTTP_OK, HTTP_ACCEPTED, HTTP_CONFLICT, HTTP_UNAVAILABLE = 200, 202, 409, 503


def dicom_status(reason: Reason | None) -> int:
    """The C-STORE response status; ``None`` is a stored object."""
    return SUCCESS if reason is None else STATUS_OF[reason]


def http_status(reasons: Sequence[Reason | None]) -> int:
    """The status of a STOW answer (PS3.18 table 10.5.3-1), one entry an instance, ``None`` where stored.

    None stored, and only because our peers are away: 503, so that the client tries again.
    """
    failed = [reason for reason in reasons if reason is not None]
    if not failed:
        return HTTP_OK
    if len(failed) < len(reasons):
        return HTTP_ACCEPTED
    return HTTP_UNAVAILABLE if TEMPORARY.issuperset(failed) else HTTP_CONFLICT
