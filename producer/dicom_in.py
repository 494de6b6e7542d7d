"""C-STORE and C-ECHO: every storage class, private ones too, every transfer syntax, kept byte for byte as sent."""

import socketserver
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydicom.dataset import Dataset
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import Verification

from contracts.deadline import Deadline
from contracts.hooks import Happening, Hooks
from contracts.reasons import Reason
from contracts.settings import LimitSettings, ProducerSettings
from producer.association_in import Guards, end_all, guarded_server, leave_place
from producer.intake import Door, Received
from producer.memory import Budget
from producer.messages_in import Forgotten, Part10
from producer.places import Places, Seats
from producer.reception import Outcome, Reception
from producer.stamp_call import monotonic_s, now_s, traceparent
from producer.statuses import PROCESSING_FAILURE, dicom_status

PRIORITY = {0: "medium", 1: "high", 2: "low"}  # PS3.7 table 9.1-1
ANY_NUMBER = 1_000_000  # of associations, by the library's count, which knows no addresses: ours decides
LIMIT_EXCEEDED = (0x02, 0x03, 0x02)  # rejected transient, presentation related, local limit (PS3.8 table 9-21)
GOODBYE_S = 5.0  # at the end: how long senders may finish before stores are refused
ABORT_S = 1.0  # what a peer gets to take our A-ABORT
FLUSH_S = 0.1  # the last responses leave before associations are aborted
COMMENT_LENGTH = 64  # ErrorComment is LO (PS3.7 C.4.2)


class Offer(Protocol):
    """A service beside storage."""

    sop_class_uid: str
    transfer_syntaxes: Sequence[str]

    def handlers(self) -> list[tuple[Any, Any]]:
        """What is called on which event of pynetdicom."""


class DicomDoor:
    """The DICOM listener. ``start`` binds and returns; ``close`` finishes the stores in progress."""

    name = "dicom"

    def __init__(
        self,
        settings: ProducerSettings,
        reception: Reception,
        budget: Budget,
        hooks: Hooks,
        offers: Sequence[Offer] = (),
        limits: LimitSettings | None = None,
    ) -> None:
        """``offers``: services beside storage on the same associations."""
        self._settings, self._reception, self._budget, self._hooks = settings, reception, budget, hooks
        self._limits = limits or LimitSettings()
        self._places = Places(_seats(settings, self._limits))
        self._ae, self._offers = _application_entity(settings, self._limits), offers
        for offer in offers:
            self._ae.add_supported_context(offer.sop_class_uid, list(offer.transfer_syntaxes))
        self._server: Any = None
        self._in_hand = _InHand()
        self._refusing = threading.Event()

    def start(self) -> None:
        """Raises OSError where the port is taken."""
        largest_bytes = self._reception.limits.largest_bytes
        guards = Guards(self._limits, largest_bytes, self._budget, self._places, self._refused, self._tell_associations)
        address = (self._settings.host, self._settings.port)
        make = guarded_server(guards)
        self._server = self._ae.make_server(address, evt_handlers=self._handlers(), server_class=make)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), name="triage-dicom", daemon=True).start()

    def addresses(self) -> Mapping[str, str]:
        """host:port, once started."""
        return {"dicom": "{}:{}".format(*self._server.server_address[:2])} if self._server else {}

    def close(self, timeout_s: float) -> None:
        """1. No new association. 2. Senders may finish. 3. New stores are refused. 4. Those in hand end. 5. Abort."""
        if self._server is None:
            return
        deadline = Deadline.after(timeout_s, monotonic_s)
        socketserver.BaseServer.shutdown(self._server)
        self._server.server_close()
        goodbye = Deadline.after(deadline.within(GOODBYE_S), monotonic_s)
        for association in self._associations():
            if association.is_established:
                association.join(goodbye.remaining_s())
        self._refusing.set()
        self._in_hand.wait_until_empty(deadline.remaining_s())
        threading.Event().wait(FLUSH_S)
        end_all(self._associations(), self._places.waiting(), ABORT_S)

    def _handlers(self) -> list[tuple[Any, Any]]:
        return [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_CONN_CLOSE, leave_place),
            *(handler for offer in self._offers for handler in offer.handlers()),
        ]

    def _store(self, event: Any) -> Dataset:
        """EVT_C_STORE: the data set stays encoded. Never raises."""
        data = event.request.DataSet
        size_bytes = data.data_set_bytes if isinstance(data, Part10) else 0
        with self._in_hand:
            try:
                return _response(self._outcome(event))
            except Exception:  # noqa: BLE001 - a fault of ours must reach the sender as a status, not as silence
                self._hooks.happened(Happening.FAULT, where="dicom")
                return _status(PROCESSING_FAILURE, "internal error")
            finally:
                event.assoc.dimse.give(size_bytes)

    def _outcome(self, event: Any) -> Outcome:
        data = event.request.DataSet
        if isinstance(data, Forgotten):
            return self._reception.refuse(_received(event, b""), data.reason)
        if self._refusing.is_set():
            return self._reception.refuse(_received(event, b""), Reason.BUFFER_FULL, "shutting down")
        if not isinstance(data, Part10):
            return self._reception.refuse(_received(event, b""), Reason.UNPARSABLE, "no data set")
        return self._reception.take(_received(event, data.getvalue()))

    def _requested(self, event: Any) -> None:
        """The library knows one called title: where the peer's is on our list, it becomes that one."""
        association = event.assoc
        request = association.requestor.primitive
        if not self._places.take(association.dul.socket.key, request.calling_ae_title.strip()):
            self._refused(Reason.TOO_MANY)
            association.acse.send_reject(*LIMIT_EXCEEDED)
            association.kill()
        self._tell_associations()
        called = request.called_ae_title.strip()
        if called in self._settings.called_aes:
            association.acceptor.ae_title = called

    def _rejected(self, _event: Any) -> None:
        """EVT_REJECTED: by the library, whose only reason left is a title."""
        self._refused(Reason.NOT_ALLOWED)

    def _refused(self, reason: Reason) -> None:
        self._hooks.happened(Happening.REFUSED, door=Door.DICOM.value, reason=reason.value)

    def _associations(self) -> list[Any]:
        return list(self._ae.active_associations)

    def _tell_associations(self) -> None:
        self._hooks.happened(Happening.ASSOCIATIONS, float(self._places.busy))


class _InHand:
    """Counts stores between request and answer; a context manager for each."""

    def __init__(self) -> None:
        self._count, self._changed = 0, threading.Condition()

    def __enter__(self) -> None:
        with self._changed:
            self._count += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: not self._count, timeout_s)


def _seats(settings: ProducerSettings, limits: LimitSettings) -> Seats:
    return Seats(
        waiting=limits.unasked_connections,
        busy=settings.max_associations,
        per_address=limits.associations_per_address,
        per_title=limits.associations_per_title,
    )


def _application_entity(settings: ProducerSettings, limits: LimitSettings) -> AE:
    """Storage contexts need not be listed: unrestricted, the sender's first transfer syntax is taken (PS3.8 9.3.2)."""
    _config.UNRESTRICTED_STORAGE_SERVICE = True
    _config.LOG_HANDLER_LEVEL = "none"  # its handlers format whole messages
    entity = AE(ae_title=settings.ae_title)
    entity.add_supported_context(Verification)
    entity.maximum_pdu_size = settings.max_pdu_bytes
    entity.maximum_associations = ANY_NUMBER
    entity.network_timeout = settings.network_timeout_s
    entity.acse_timeout = limits.first_pdu_s
    entity.require_calling_aet = list(settings.calling_aes)
    entity.require_called_aet = bool(settings.called_aes)
    return entity


def _received(event: Any, part10: bytes) -> Received:
    request = event.request
    return Received(
        part10,
        Door.DICOM,
        source=event.assoc.requestor.ae_title.strip(),
        received_at=now_s(),
        traceparent=traceparent(),
        sop_class_uid=str(request.AffectedSOPClassUID or "").strip(" \0"),
        sop_instance_uid=str(request.AffectedSOPInstanceUID or "").strip(" \0"),
        priority=PRIORITY.get(request.Priority, ""),
    )


def _response(outcome: Outcome) -> Dataset:
    return _status(dicom_status(outcome.reason), outcome.reason.value if outcome.reason else "")


def _status(code: int, comment: str) -> Dataset:
    response = Dataset()
    response.Status = code
    if comment:
        response.ErrorComment = comment[:COMMENT_LENGTH]
    return response
