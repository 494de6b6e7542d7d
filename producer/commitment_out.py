"""N-EVENT-REPORT: the answer to a commitment request (PS3.4 J.3.3), over the association it came on or over a new one.

An association is the library's: its reactor thread alone may send, and takes every message that comes in. So that a
report neither breaks into another message nor takes another's answer, it is sent by the reactor itself, between two
messages, and its response is picked out as it arrives (``Correspondence``).
"""

import itertools
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from io import BytesIO
from typing import Any

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, build_role
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

from contracts.deadline import Deadline
from contracts.errors import PeerAway, PeerRefused, PeerTimeout
from producer.commitment_set import TRANSFER_SYNTAXES
from producer.stamp_call import monotonic_s

PEER = "commitment requestor"
CONNECT_S = 5.0  # TCP and A-ASSOCIATE: a peer on a hospital's network that takes longer is away
NO_STATUS = 0x0110  # a response without a status says nothing good
REPLY_S = 30.0  # pynetdicom's own DIMSE timeout; a requestor may mark thousands of images before it answers
LOOK_S = 0.1  # how soon the end of an association is noticed
LAST_MESSAGE_ID = 65_535  # PS3.7 9.3: US

Information = Callable[[bool], tuple[int, bytes]]  # implicit VR? → event type and encoded data set


class Correspondence(queue.Queue[Any]):
    """The message queue of an association, made two-way. Put in place of the library's with ``on``.

    The reactor asks its queue for the next message in every turn: that is when reports leave.
    """

    association: Any
    leaving: "queue.SimpleQueue[tuple[N_EVENT_REPORT, int]]"
    waiting: dict[int, "Future[int]"]
    numbers: Iterator[int]

    @classmethod
    def on(cls, association: Any) -> "Correspondence":
        """The association's correspondence; the messages that already wait in its queue stay there."""
        found = association.dimse.msg_queue
        if not isinstance(found, cls):
            found.association, found.leaving, found.waiting = association, queue.SimpleQueue(), {}
            found.numbers = itertools.cycle(range(1, LAST_MESSAGE_ID + 1))
            found.__class__ = cls  # exchanging the object would lose a message that comes in just now
        kept: Correspondence = found
        return kept

    def put(self, item: Any, *args: Any, **given: Any) -> None:
        """A message came in: a response to a report goes to whoever waits for it."""
        message = item[1]
        if isinstance(message, N_EVENT_REPORT) and message.MessageIDBeingRespondedTo is not None:
            future = self.waiting.pop(message.MessageIDBeingRespondedTo, None)
            if future is not None:
                future.set_result(NO_STATUS if message.Status is None else int(message.Status))
            return
        super().put(item, *args, **given)

    def get(self, *args: Any, **given: Any) -> Any:
        """The next message, once what has to leave has left."""
        while not self.leaving.empty():
            primitive, context_id = self.leaving.get()
            self.association.dimse.send_msg(primitive, context_id)
        return super().get(*args, **given)

    def send(self, primitive: N_EVENT_REPORT, context_id: int) -> int:
        """The status of the response. Raises PeerAway, PeerTimeout. Called in any thread but the reactor's."""
        answer: Future[int] = Future()
        primitive.MessageID = next(self.numbers)
        self.waiting[primitive.MessageID] = answer
        self.leaving.put((primitive, context_id))
        try:
            return self._await(answer)
        finally:
            self.waiting.pop(primitive.MessageID, None)

    def _await(self, answer: "Future[int]") -> int:
        deadline = Deadline.after(REPLY_S, monotonic_s)
        while not deadline.expired():
            try:
                return answer.result(LOOK_S)
            except TimeoutError:
                if not self.association.is_established:
                    raise PeerAway(PEER, "the association ended before the report was answered") from None
        raise PeerTimeout(PEER, "no response to the report")


class Association:
    """Implements ``producer.commitment_desk.Route``: an association and one of its presentation contexts."""

    def __init__(self, association: Any, context_id: int) -> None:
        self._association, self._context_id = association, context_id
        self._correspondence = Correspondence.on(association)

    def open(self) -> bool:
        """Whether a report can still go over it."""
        return bool(self._association.is_established)

    def report(self, information: Information) -> None:
        """Returns once the peer answered Success. Raises PeerAway, PeerTimeout, PeerRefused."""
        (context,) = (c for c in self._association.accepted_contexts if c.context_id == self._context_id)
        told = information(context.transfer_syntax[0] == ImplicitVRLittleEndian)
        status = self._correspondence.send(_primitive(*told), self._context_id)
        if status != 0:
            raise PeerRefused(PEER, f"0x{status:04X}")


class Caller:
    """Opens associations to requestors that have closed theirs, as the SCP (PS3.7 D.3.3.4, PS3.4 J.3.3.2)."""

    def __init__(self, ae_title: str) -> None:
        self._entity = AE(ae_title=ae_title)
        self._entity.add_requested_context(StorageCommitmentPushModel, list(TRANSFER_SYNTAXES))
        self._entity.connection_timeout = self._entity.acse_timeout = CONNECT_S
        self._entity.network_timeout = (
            None  # its abort can meet our release and wait for it for ever; we count ourselves
        )

    def report(self, title: str, address: str, information: Information) -> None:
        """Opens, reports, releases. Raises PeerAway, PeerTimeout, PeerRefused."""
        host, _, port = address.rpartition(":")
        role = build_role(StorageCommitmentPushModel, scp_role=True)
        association = self._entity.associate(host.strip("[]"), int(port), ae_title=title, ext_neg=[role])
        if not association.is_established:
            raise _not_established(association)
        try:
            context_id = association.accepted_contexts[0].context_id
            Association(association, context_id).report(information)
        finally:
            _end(association)


def _end(association: Any) -> None:
    """Releases. Where the peer ends it in that moment pynetdicom waits, for ever, for a reactor that is no more."""
    releasing = threading.Thread(target=association.release, name="triage-commitment-release", daemon=True)
    releasing.start()
    releasing.join(CONNECT_S)
    if releasing.is_alive():
        association.abort()
        association._is_paused = True  # noqa: SLF001 - what it waits for; there is no public way


def _not_established(association: Any) -> PeerAway | PeerRefused:
    if association.is_rejected:
        return PeerRefused(PEER, "association rejected")
    if association.rejected_contexts:
        return PeerRefused(PEER, "Storage Commitment Push Model not accepted")
    return PeerAway(PEER, "no association")


def _primitive(event_type: int, encoded: bytes) -> N_EVENT_REPORT:
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID = StorageCommitmentPushModel
    report.AffectedSOPInstanceUID = StorageCommitmentPushModelInstance
    report.EventTypeID = event_type
    report.EventInformation = BytesIO(encoded)
    return report
