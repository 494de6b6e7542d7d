"""Action and Event Information of storage commitment (PS3.4 tables J.3-1 and J.3-2): bytes ↔ request and report.

Anything else than what is asked gets a status of PS3.7 Annex C:

========  ===================================================
0x0110    processing failure: not a data set
0x0120    missing attribute
0x0121    missing attribute value
0x0106    invalid attribute value: no UID, or a wrong kind
0x0213    resource limitation: more references than we take
========  ===================================================
"""

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from contracts.errors import Rejected
from contracts.reasons import Reason
from producer.caps import Caps, Count
from producer.commitment import Reference, Verdict
from producer.elements import ITEM, LITTLE, Element, Level, is_sequence, level_at
from producer.intake import is_uid
from producer.walking import Listener, past, walk

TRANSACTION_UID = 0x00081195
FAILED_SOP_SEQUENCE, REFERENCED_SOP_SEQUENCE = 0x00081198, 0x00081199
FAILURE_REASON = 0x00081197
REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID = 0x00081150, 0x00081155

TRANSFER_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)  # every peer must propose the second (PS3.5 10.1)
LONG_FORM = frozenset((b"SQ",))  # of the VRs that we write (PS3.5 7.1.2)
MAX_DEPTH = 8  # the request itself nests one sequence; what a vendor adds nests little more
REFERENCE_BYTES = 512  # an item with two UIDs takes 170; the rest is room for what a vendor adds
REFERENCE_ELEMENTS = 8  # elements and item of one: four are enough
ENVELOPE_BYTES, ENVELOPE_ELEMENTS = 16 * 1024, 256  # everything beside the references
LONGEST_UID_BYTES = 256  # PS3.5 9.1: 64, and padding that some writers overdo

PROCESSING_FAILURE, INVALID_VALUE, MISSING, MISSING_VALUE, TOO_MANY = 0x0110, 0x0106, 0x0120, 0x0121, 0x0213


class Refused(Exception):
    """The request is answered with this status; ``comment`` never repeats what the peer sent."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status, self.comment = status, comment


def read_action(data: bytes, *, implicit: bool, max_references: int) -> tuple[str, tuple[Reference, ...]]:
    """TransactionUID and the references, each once, in their order. Raises Refused and nothing else."""
    if len(data) > max_references * REFERENCE_BYTES + ENVELOPE_BYTES:
        raise Refused(TOO_MANY, "too large")
    elements = max_references * REFERENCE_ELEMENTS + ENVELOPE_ELEMENTS
    count = Count(Caps(depth=MAX_DEPTH, elements=2 * elements))  # the sequence is walked twice
    try:
        level = level_at(data, 0, len(data), LITTLE, implicit=implicit)
        found = walk(level, 0, count, _never, frozenset((TRANSACTION_UID, REFERENCED_SOP_SEQUENCE)))
        if found.cut_short:
            raise Refused(PROCESSING_FAILURE, "cut short")
        transaction = _uid(level, found.elements.get(TRANSACTION_UID), "TransactionUID")
        return transaction, _references(level, found.elements.get(REFERENCED_SOP_SEQUENCE), max_references, count)
    except Rejected as problem:
        status = TOO_MANY if problem.reason is Reason.TOO_COMPLEX else PROCESSING_FAILURE
        raise Refused(status, problem.reason.value) from None


def event_information(transaction_uid: str, verdict: Verdict, *, implicit: bool) -> tuple[int, bytes]:
    """Event type and data set of the report: 1 where all are committed, 2 where failures exist (PS3.4 J.3.3.1).

    Written here because pydicom takes two seconds of every other thread's time for 20,000 items.
    """
    told = [_written(TRANSACTION_UID, b"UI", _padded(transaction_uid), implicit=implicit)]
    if verdict.failed:
        items = [_item(reference, implicit=implicit, reason=reason) for reference, reason in verdict.failed]
        told.append(_written(FAILED_SOP_SEQUENCE, b"SQ", b"".join(items), implicit=implicit))
    if verdict.committed:
        items = [_item(reference, implicit=implicit) for reference in verdict.committed]
        told.append(_written(REFERENCED_SOP_SEQUENCE, b"SQ", b"".join(items), implicit=implicit))
    return (2 if verdict.failed else 1), b"".join(told)


def _item(reference: Reference, *, implicit: bool, reason: int | None = None) -> bytes:
    body = _written(REFERENCED_SOP_CLASS_UID, b"UI", _padded(reference.sop_class_uid), implicit=implicit)
    body += _written(REFERENCED_SOP_INSTANCE_UID, b"UI", _padded(reference.sop_instance_uid), implicit=implicit)
    if reason is not None:
        body += _written(FAILURE_REASON, b"US", reason.to_bytes(2, "little"), implicit=implicit)
    return _written(ITEM, b"", body, implicit=True)


def _written(tag: int, vr: bytes, value: bytes, *, implicit: bool) -> bytes:
    """One element, of defined length (PS3.5 7.1.2, 7.1.3)."""
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    if implicit:
        return head + len(value).to_bytes(4, "little") + value
    if vr in LONG_FORM:
        return head + vr + bytes(2) + len(value).to_bytes(4, "little") + value
    return head + vr + len(value).to_bytes(2, "little") + value


def _padded(uid: str) -> bytes:
    return (uid + "\0" * (len(uid) % 2)).encode("ascii")


def _never(_tag: int) -> bool:
    return False


def _references(level: Level, sequence: Element | None, limit: int, count: Count) -> tuple[Reference, ...]:
    if sequence is None:
        raise Refused(MISSING, "ReferencedSOPSequence")
    if not is_sequence(level, sequence):
        raise Refused(INVALID_VALUE, "ReferencedSOPSequence is no sequence")
    items = _Items(limit)
    past(level, sequence, count, items)
    if not items.references:
        raise Refused(MISSING_VALUE, "ReferencedSOPSequence")
    return tuple(items.references)


class _Items(Listener):
    """Hears the items of ReferencedSOPSequence; what is nested in them is passed over."""

    def __init__(self, limit: int) -> None:
        self.references: dict[Reference, None] = {}  # each once, in order
        self._limit, self._depth = limit, 0
        self._level: Level | None = None
        self._found: dict[int, Element] = {}

    def sequence(self, element: Element) -> None:
        """One within an item."""
        if self._depth == 0 and element.tag in (REFERENCED_SOP_CLASS_UID, REFERENCED_SOP_INSTANCE_UID):
            raise Refused(INVALID_VALUE, "a UID is a sequence")
        self._depth += 1

    def sequence_end(self) -> None:
        """Of it, or of the one that is read."""
        self._depth -= 1

    def item(self) -> None:
        """The next reference, or one within it."""
        if self._depth == 0:
            self._found = {}

    def value(self, level: Level, element: Element) -> None:
        """An element of any item."""
        if self._depth == 0:
            self._level = level
            self._found.setdefault(element.tag, element)

    def item_end(self) -> None:
        """The reference is whole."""
        if self._depth:
            return
        level = self._level or Level(b"", implicit=True, order=LITTLE, limit=0)
        sop_class = _uid(level, self._found.get(REFERENCED_SOP_CLASS_UID), "ReferencedSOPClassUID")
        self.references[Reference(sop_class, self._instance(level))] = None
        if len(self.references) > self._limit:
            raise Refused(TOO_MANY, "too many references")

    def _instance(self, level: Level) -> str:
        return _uid(level, self._found.get(REFERENCED_SOP_INSTANCE_UID), "ReferencedSOPInstanceUID")

    def broken(self, value: memoryview) -> None:
        """No leniency here: a reference that is passed over would be lost."""
        del value
        raise Refused(PROCESSING_FAILURE, "a sequence is broken")


def _uid(level: Level, element: Element | None, name: str) -> str:
    if element is None:
        raise Refused(MISSING, name)
    if element.end > level.limit or element.end - element.at > LONGEST_UID_BYTES:
        raise Refused(INVALID_VALUE, name)
    text = level.body[element.at : element.end].rstrip(b" \0").decode("ascii", "replace")
    if not text:
        raise Refused(MISSING_VALUE, name)
    if not is_uid(text):
        raise Refused(INVALID_VALUE, name)
    return text
