"""Guards on one DICOM connection: how long it may say nothing, how long a PDU may take, and what it may hold.

pynetdicom starts threads for every connection, buffers what a peer announces (a 6-byte PDU header can claim 4 GiB) and
makes objects of everything in it before anybody looks. Here a connection costs one sleeping thread until its first
byte; a PDU over the announced length, past its deadline or with more items than anybody needs closes it (PS3.8 D.1).
"""

import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

from contracts.deadline import Deadline
from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.late_words_in import PatientAssociation, PatientStateMachine
from producer.memory import Budget
from producer.messages_in import GuardedMessages
from producer.places import Places
from producer.stamp_call import monotonic_s
from producer.upper_layer import ASSOCIATE_RQ, P_DATA, Malformed, check_associate, check_data

PDU_SLACK_BYTES = 1024  # some senders forget that the PDV headers count
SHORT_PDU_BYTES = 1024  # release, abort, rejection: four bytes each (PS3.8 9.3.4, 9.3.6 to 9.3.8)
READ_BYTES = 256 * 1024
SHORTEST_WAIT_S = 0.001  # zero would mean: do not wait at all
HEAD = struct.Struct(">BBL")
PDU_TYPES = range(0x01, 0x08)
UNASKED_STATES = ("Sta2", "Sta13")  # PS3.8 9.2.3: awaiting the request; awaiting the end after something else came


@dataclass(frozen=True, slots=True)
class Guards:
    """What every connection is held to. ``refused``: told why one was ended; ``closed``: called when one is over."""

    limits: LimitSettings
    largest_bytes: int
    budget: Budget
    places: Places
    refused: Callable[[Reason], None]
    closed: Callable[[], None]


class GuardedSocket(AssociationSocket):
    """Reads in large pieces, no more than a PDU may hold, and each PDU within its time."""

    guards: Guards
    longest_pdu_bytes: int
    first_by: Deadline | None
    key: socket.socket  # the connection's own: the library forgets it when it closes
    _head: tuple[int, int] | None = None  # type and length of the PDU whose body comes next
    _by: Deadline

    def recv(self, nr_bytes: int) -> bytearray:
        """Exactly that many bytes, fewer where the peer hangs up. Raises OSError over a cap or after the deadline.

        The library asks for a PDU's first six bytes, then for its body.
        """
        if self._head is not None and self._head[1] == nr_bytes:
            return self._body(self._head[0], nr_bytes)
        self._by = self.first_by or Deadline.after(self.guards.limits.pdu_s, monotonic_s)
        read = self._read(nr_bytes)
        if len(read) == HEAD.size:
            kind, _, length = HEAD.unpack(read)
            self._head = (kind, length) if kind in PDU_TYPES else None
        return read

    def _body(self, kind: int, nr_bytes: int) -> bytearray:
        self._head, self.first_by = None, None
        limits = self.guards.limits
        longest = {ASSOCIATE_RQ: limits.associate_bytes, P_DATA: self.longest_pdu_bytes}.get(kind, SHORT_PDU_BYTES)
        if nr_bytes > longest:
            self._give_up(Reason.PROTOCOL)
        body = self._read(nr_bytes)
        try:
            if kind == ASSOCIATE_RQ:
                check_associate(body, limits.associate_items)
            elif kind == P_DATA:
                check_data(body, limits.pdu_fragments)
        except Malformed:
            self._give_up(Reason.PROTOCOL)
        return body

    def _read(self, nr_bytes: int) -> bytearray:
        read = bytearray(nr_bytes)
        try:
            with memoryview(read) as view:
                count = self._fill(view)
        except TimeoutError:
            self._give_up(Reason.TOO_SLOW)
        finally:
            if self.key.fileno() >= 0:
                self.key.settimeout(self.assoc.network_timeout)
        del read[count:]
        return read

    def _fill(self, view: memoryview) -> int:
        at = 0
        while at < len(view):
            self.key.settimeout(max(self._by.remaining_s(), SHORTEST_WAIT_S))
            count = self.key.recv_into(view[at:], min(len(view) - at, READ_BYTES))
            if not count:
                break
            at += count
        return at

    def end(self, reason: Reason) -> None:
        """Refuses the peer: the connection is over for whoever reads from it."""
        self.guards.refused(reason)
        hang_up(self.key)

    def _give_up(self, reason: Reason) -> NoReturn:
        self.guards.refused(reason)
        raise OSError(reason.value)


class GuardedHandler(RequestHandler):
    """Runs in a thread of its own for each connection, and stays to the end of the association."""

    server: "GuardedServer"

    def handle(self) -> None:
        """The connection's whole life; its place is left at the end."""
        guards = self.server.guards
        self._by = Deadline.after(guards.limits.first_pdu_s, monotonic_s)
        try:
            if _speaks(self.request, guards):
                self._associated()
            else:
                self.server.shutdown_request(self.request)
        finally:
            guards.places.leave(self.request)
            guards.closed()

    def _associated(self) -> None:
        super().handle()
        self._association.join()  # the one sign of the end that never fails to come
        self._association.dimse.give_all()

    def _create_association(self) -> Any:
        guards = self.server.guards
        self._association = assoc = super()._create_association()
        share = guards.budget.of(self.client_address[0])
        assoc.dimse = GuardedMessages(assoc, guards.largest_bytes, guards.limits, share, guards.refused)
        assoc.__class__ = PatientAssociation  # pynetdicom makes both itself
        assoc.dul.state_machine.__class__ = PatientStateMachine
        assoc.dul.daemon = True  # a peer that trickles does not keep a process from its end
        _guard_socket(assoc, self.request, guards, self._by)
        return assoc


class GuardedServer(ThreadedAssociationServer):
    """Every connection gets a place and a handler; ``guards`` are its class's own."""

    guards: Guards
    request_queue_size = 128  # connections that wait while the accepting thread is busy
    daemon_threads = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, request_handler=GuardedHandler, **kwargs)

    def process_request(self, request: Any, client_address: Any) -> None:
        """A new connection waits, and others may have to give way to it."""
        for other in self.guards.places.enter(request, client_address[0], monotonic_s()):
            self.guards.refused(Reason.TOO_MANY)
            hang_up(other)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that is gone before we look at it: nothing to print, and its address is nobody's business."""
        del client_address
        self.guards.places.leave(request)


def guarded_server(guards: Guards) -> type[GuardedServer]:
    """A server class whose every association is held to these: the library makes the server itself."""
    return type("GuardedServer", (GuardedServer,), {"guards": guards})


def hang_up(connection: Any) -> None:
    """Ends a connection under whoever reads from it: they see the end of the stream."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is gone


def end_all(associations: list[Any], connections: list[Any], patience_s: float) -> None:
    """Aborts side by side; whoever takes longer than ``patience_s`` (a peer that trickles) loses the connection."""
    aborting = [threading.Thread(target=association.abort, daemon=True) for association in associations]
    for thread in aborting:
        thread.start()
    for connection in connections:
        hang_up(connection)
    patience = Deadline.after(patience_s, monotonic_s)
    for thread in aborting:
        thread.join(patience.remaining_s())
    for association in associations:
        hang_up(association.dul.socket.key)
    for thread in aborting:
        thread.join(patience_s)


def leave_place(event: Any) -> None:
    """EVT_CONN_CLOSE: a peer that hung up before it asked for an association does not keep its place until the timeout.

    pynetdicom's association waits for the request all the same; nothing, in its queue, is what it gets at the timeout.
    """
    association = event.assoc
    unasked = association.requestor.primitive is None and association.dul.to_user_queue.empty()
    if unasked and association.dul.state_machine.current_state in UNASKED_STATES:
        association.dul.to_user_queue.put(None)


def _speaks(connection: socket.socket, guards: Guards) -> bool:
    """Waits for a connection's first byte. A silent one costs no more than this thread's sleep."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    try:
        if not poll.poll(guards.limits.first_pdu_s * 1000):
            guards.refused(Reason.TOO_SLOW)
            return False
        return bool(connection.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


def _guard_socket(assoc: Any, connection: socket.socket, guards: Guards, first_by: Deadline) -> None:
    wrapped = assoc.dul.socket
    wrapped.__class__ = GuardedSocket  # pynetdicom makes it itself, and announces the connection while it does
    wrapped.guards, wrapped.first_by, wrapped.key = guards, first_by, connection
    wrapped.longest_pdu_bytes = assoc.acceptor.maximum_length + PDU_SLACK_BYTES
    connection.settimeout(assoc.network_timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
