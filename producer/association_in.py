"""Guards on one DICOM association: how much a peer may make us hold, and for how long it may say nothing.

pynetdicom buffers what a peer announces: a 6-byte PDU header can claim 4 GiB, a message can grow without end, and an
accepted socket waits for ever. Here a PDU over the announced length closes the connection (PS3.8 D.1), a message over
its cap or over the shared budget is read to its end, forgotten while it is read, and answered with a status.
"""

import socket
import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from contracts.reasons import Reason
from producer.memory import Budget

PDU_SLACK_BYTES = 1024  # some senders forget that the PDV headers count
READ_BYTES = 256 * 1024
UNASKED_STATES = ("Sta2", "Sta13")  # PS3.8 9.2.3: awaiting the request; awaiting the end after something else came


class Forgotten(BytesIO):
    """Stands where a data set would grow that we do not take: swallows the rest, knows why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__()
        self.reason = reason

    def write(self, data: Any) -> int:
        """Nothing is kept."""
        return len(data)


class GuardedMessages(DIMSEServiceProvider):
    """Counts the data set bytes of one association against a cap for each message and a budget shared by all."""

    def __init__(self, assoc: Any, largest_bytes: int, budget: Budget) -> None:
        super().__init__(assoc)
        self.message: Any
        self._largest_bytes, self._budget = largest_bytes, budget
        self._lock = threading.Lock()
        self._growing_bytes = 0  # of the message that is coming in
        self._held_bytes = 0  # of it and of those not yet settled

    def receive_primitive(self, primitive: Any) -> None:
        """As pynetdicom's, after the fragments were counted. Runs in the association's network thread."""
        if self.message is None:
            self.message = DIMSEMessage()
            self._growing_bytes = 0
        if not isinstance(self.message.data_set, Forgotten):
            self._grow(sum(len(data) - 1 for _, data in primitive.presentation_data_value_list if not data[0] & 1))
        super().receive_primitive(primitive)

    def _grow(self, size_bytes: int) -> None:
        self._growing_bytes += size_bytes
        if self._growing_bytes > self._largest_bytes:
            self._forget(Reason.TOO_LARGE, self._growing_bytes - size_bytes)
        elif not self._budget.take(size_bytes):
            self._forget(Reason.BUFFER_FULL, self._growing_bytes - size_bytes)
        else:
            with self._lock:
                self._held_bytes += size_bytes

    def _forget(self, reason: Reason, taken_bytes: int) -> None:
        self.message.data_set = Forgotten(reason)
        self.give(taken_bytes)

    def give(self, size_bytes: int) -> None:
        """Hands bytes back: a message was settled or forgotten."""
        with self._lock:
            size_bytes = min(size_bytes, self._held_bytes)
            self._held_bytes -= size_bytes
        self._budget.give(size_bytes)

    def give_all(self) -> None:
        """The association is over, however it ended."""
        self.give(self._held_bytes)


class GuardedSocket(AssociationSocket):
    """Reads in large pieces, and no more than a PDU may hold."""

    longest_pdu_bytes: int

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly that many bytes, fewer where the peer hangs up. Raises OSError over the cap or after the timeout."""
        if nr_bytes > self.longest_pdu_bytes:
            raise OSError("PDU longer than announced")
        read = bytearray(nr_bytes)
        view, at = memoryview(read), 0
        while at < nr_bytes:
            count = self.socket.recv_into(view[at:], min(nr_bytes - at, READ_BYTES))
            if not count:
                break
            at += count
        view.release()
        del read[at:]
        return read


def guarded_server(budget: Budget, largest_bytes: int, closed: Callable[[], None]) -> type[ThreadedAssociationServer]:
    """A server class whose every association is guarded. ``closed`` is called when one is over."""

    class Handler(RequestHandler):
        """Runs in a thread of its own for each connection, and stays to the end of the association."""

        def handle(self) -> None:
            super().handle()
            self._association.join()  # the one sign of the end that never fails to come
            self._association.dimse.give_all()
            closed()

        def _create_association(self) -> Any:
            self._association = super()._create_association()
            self._association.dimse = GuardedMessages(self._association, largest_bytes, budget)
            _guard_socket(self._association)
            return self._association

    class Server(ThreadedAssociationServer):
        request_queue_size = 128  # connections that wait while the accepting thread is busy
        daemon_threads = True

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, request_handler=Handler, **kwargs)

    return Server


def leave_place(event: Any) -> None:
    """EVT_CONN_CLOSE: a peer that hung up before it asked for an association does not keep its place until the timeout.

    pynetdicom's association waits for the request all the same; nothing, in its queue, is what it gets at the timeout.
    """
    association = event.assoc
    unasked = association.requestor.primitive is None and association.dul.to_user_queue.empty()
    if unasked and association.dul.state_machine.current_state in UNASKED_STATES:
        association.dul.to_user_queue.put(None)


def _guard_socket(assoc: Any) -> None:
    wrapped = assoc.dul.socket
    wrapped.__class__ = GuardedSocket  # pynetdicom makes it itself, and announces the connection while it does
    wrapped.longest_pdu_bytes = assoc.acceptor.maximum_length + PDU_SLACK_BYTES
    wrapped.socket.settimeout(assoc.network_timeout)
    wrapped.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
