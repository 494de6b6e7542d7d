"""N-ACTION: a peer asks for storage commitment (PS3.4 J.3.2). Success means that the request itself is durable.

1. The request is read; what is wrong with it is a status (PS3.7 Annex C).
2. Nothing else is owed under its TransactionUID, and there is room for it.
3. It is appended to ``commitments`` and acknowledged by every in-sync replica.
4. 0x0000. The report comes later, on this association if it is still open by then.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from contracts.deadline import Deadline
from contracts.errors import PeerBusy, PeerError, PeerRefused, PeerTimeout
from contracts.hooks import Happening, Hooks
from contracts.ports import Entry, Header, Log
from contracts.settings import ProducerSettings
from producer.commitment import ADDRESS, Request
from producer.commitment_desk import Desk, Route
from producer.commitment_set import PROCESSING_FAILURE, TOO_MANY, TRANSFER_SYNTAXES, Refused, read_action
from producer.messages_in import Forgotten

REQUEST_STORAGE_COMMITMENT = 1  # PS3.4 J.3.2.1: the one action type
SUCCESS = 0x0000
NO_SUCH_INSTANCE, INVALID_ARGUMENT = 0x0112, 0x0115
NO_SUCH_CLASS, MISSING, NO_SUCH_ACTION = 0x0118, 0x0120, 0x0123
COMMENT_LENGTH = 64  # ErrorComment is LO (PS3.7 C.4.2)


class CommitmentRequests:
    """What the DICOM door offers beside storage."""

    sop_class_uid: str = StorageCommitmentPushModel
    transfer_syntaxes: Sequence[str] = TRANSFER_SYNTAXES

    def __init__(
        self,
        settings: ProducerSettings,
        desk: Desk,
        append: "Append",
        route: Callable[[Any, int], Route],
        hooks: Hooks,
    ) -> None:
        """``route``: association and presentation context → the way back."""
        self._settings, self._desk, self._append, self._route, self._hooks = settings, desk, append, route, hooks

    def handlers(self) -> list[tuple[Any, Any]]:
        """EVT_N_ACTION."""
        return [(evt.EVT_N_ACTION, self.action)]

    def action(self, event: Any) -> tuple[Dataset, None]:
        """The response to one N-ACTION. Never raises."""
        try:
            self._take(event)
            status, comment = SUCCESS, ""
        except Refused as refusal:
            status, comment = refusal.status, refusal.comment
        except Exception:  # noqa: BLE001 - a fault of ours must reach the peer as a status, not as silence
            self._hooks.happened(Happening.FAULT, where="commitment")
            status, comment = PROCESSING_FAILURE, "internal error"
        self._hooks.happened(Happening.COMMITMENT_REQUESTED, answer=f"0x{status:04X}")
        return _response(status, comment), None

    def _take(self, event: Any) -> None:
        request = self._read(event)
        pending = self._desk.same(request.key)
        if pending is None:
            self._keep(request, self._way_back(event), str(event.assoc.requestor.address))
        elif Request.decode(pending).references == request.references:
            self._desk.came_on(request.key, self._way_back(event))
        else:
            raise Refused(INVALID_ARGUMENT, "TransactionUID is in use")

    def _way_back(self, event: Any) -> Route:
        return self._route(event.assoc, event.request._context_id)  # noqa: SLF001 - told nowhere else

    def _read(self, event: Any) -> Request:
        request = event.request
        _check(event)
        if isinstance(request.ActionInformation, Forgotten):
            raise Refused(TOO_MANY, "too large")
        transaction_uid, references = read_action(
            request.ActionInformation.getvalue(),
            implicit=event.context.transfer_syntax == ImplicitVRLittleEndian,
            max_references=self._settings.commitment_references,
        )
        calling_ae = event.assoc.requestor.ae_title.strip()
        return Request(calling_ae, transaction_uid, references, time.time())

    def _keep(self, request: Request, route: Route, address: str) -> None:
        value = request.encode()
        if not self._desk.room.take(len(value), address):
            raise Refused(TOO_MANY, "too many reports are owed")
        try:
            self._desk.came_on(request.key, route)  # before the record can come back from the log
            self._append(request.key, value, address)
        except (PeerBusy, PeerRefused) as problem:  # our buffer is full; the record is too large
            raise Refused(TOO_MANY, type(problem).__name__) from None
        except PeerError as problem:
            raise Refused(PROCESSING_FAILURE, type(problem).__name__) from None
        finally:
            self._desk.room.give(len(value), address)  # the log's reader holds it from now on


class Append:
    """Writes to ``commitments``; returns once the record is durable. Raises PeerError within ``ack_timeout_s``."""

    def __init__(self, log: Log, topic: str, desk: Desk, ack_timeout_s: float) -> None:
        self._log, self._topic, self._desk, self._ack_timeout_s = log, topic, desk, ack_timeout_s

    def __call__(self, key: bytes, value: bytes, address: str) -> None:
        """A new request, into a partition of ours where there is one. ``address``: where it came from."""
        headers = ((ADDRESS, address.encode("ascii", "replace")),)
        self.to(self._desk.choose(crc32(key) % self._log.partitions), key, value, headers)

    def to(self, partition: int, key: bytes, value: bytes | None, headers: Sequence[Header] = ()) -> None:
        """``value`` None: the report was delivered, or given up."""
        deadline = Deadline.after(self._ack_timeout_s, time.monotonic)
        future = self._log.append(Entry(self._topic, partition, key, value, headers))
        try:
            future.result(deadline.remaining_s())
        except TimeoutError:
            raise PeerTimeout("kafka", "no acknowledgement within the deadline") from None


def _check(event: Any) -> None:
    """What presentation context and command set say (PS3.7 10.1.4.1)."""
    request = event.request
    if {request.RequestedSOPClassUID, event.context.abstract_syntax} != {StorageCommitmentPushModel}:
        raise Refused(NO_SUCH_CLASS, "not the Storage Commitment Push Model")
    if request.RequestedSOPInstanceUID != StorageCommitmentPushModelInstance:
        raise Refused(NO_SUCH_INSTANCE, "not the well-known instance")
    if request.ActionTypeID != REQUEST_STORAGE_COMMITMENT:
        raise Refused(NO_SUCH_ACTION, "no such action")
    if request.ActionInformation is None:
        raise Refused(MISSING, "no Action Information")


def _response(status: int, comment: str) -> Dataset:
    response = Dataset()
    response.Status = status
    if comment:
        response.ErrorComment = comment[:COMMENT_LENGTH]
    return response
