"""The messages of one association: how much of them we hold, of how many fragments, how fast they must come.

A message over its cap, or over the budget that all doors share, is read to its end, forgotten while it is read, and
answered with a status. What breaks the protocol, or trickles, ends the association (PS3.8 9.2.3, event 19).
"""

import threading
from collections.abc import Callable
from io import BytesIO
from typing import Any

from pydicom.uid import UID
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import _DATASET_KEYWORDS, C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.pdu_primitives import P_DATA

from contracts.reasons import Reason
from contracts.settings import LimitSettings
from producer.memory import Room
from producer.preamble import CLEAN, PREFIX
from producer.stamp_call import monotonic_s
from producer.upper_layer import N_EVENT_REPORT_RQ, Malformed, command_field

COMMAND, LAST = 1, 2  # bits of the message control header (PS3.8 E.2)
INVALID_PDU = "Evt19"

Refused = Callable[[Reason], None]


class Forgotten(BytesIO):
    """Stands where a data set would grow that we do not take: swallows the rest, knows why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__()
        self.reason = reason

    def write(self, data: Any) -> int:
        """Nothing is kept."""
        return len(data)


class Part10(BytesIO):
    """A data set that grows behind its own preamble and File Meta: it is not copied to be put together."""

    lead_bytes = 0

    @property
    def data_set_bytes(self) -> int:
        """What the sender sent."""
        return self.tell() - self.lead_bytes


class GuardedMessages(DIMSEServiceProvider):
    """Counts fragments and bytes of one association; its methods run in the association's network thread."""

    def __init__(self, assoc: Any, largest_bytes: int, limits: LimitSettings, budget: Room, refused: Refused) -> None:
        """``budget``: the peer's share of it. ``refused``: told why the association is ended."""
        super().__init__(assoc)
        self.message: Any
        self._largest_bytes, self._limits, self._budget, self._refused = largest_bytes, limits, budget, refused
        self._lock = threading.Lock()
        self._held_bytes = 0  # of the growing message and of those not yet settled
        self._growing_bytes = 0  # of the message that is coming in, with its command set
        self._taken_bytes = 0  # of those, how many the budget gave
        self._fragments = 0
        self._began_s = 0.0
        self._ended = False

    def receive_primitive(self, primitive: Any) -> None:
        """As pynetdicom's, one fragment at a time, each looked at before it is kept."""
        for context_id, data in primitive.presentation_data_value_list:
            if self._ended:
                return
            if self.message is None:
                self._begin()
            reason = self._objection(data)
            if reason is not None:
                self._end(reason)
                return
            self._make_room(context_id, data)
            one = P_DATA()
            one.presentation_data_value_list = [[context_id, data]]
            super().receive_primitive(one)

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002 - pynetdicom's own
        """The next message. What is no store is answered at once: its bytes count no longer."""
        context_id, message = super().get_msg(block)
        if isinstance(message, C_STORE) and not message.is_valid_request:
            self._end(Reason.PROTOCOL)  # the library would leave it unanswered, and the sender waiting
        elif message is not None and not isinstance(message, C_STORE):
            sets = (getattr(message, keyword, None) for keyword in _DATASET_KEYWORDS.values())
            self.give(sum(len(found.getvalue()) for found in sets if isinstance(found, BytesIO)))
        return context_id, message

    def give(self, size_bytes: int) -> None:
        """Hands bytes back: a message was settled or forgotten."""
        with self._lock:
            size_bytes = min(size_bytes, self._held_bytes)
            self._held_bytes -= size_bytes
        self._budget.give(size_bytes)

    def give_all(self) -> None:
        """The association is over, however it ended."""
        self.give(self._held_bytes)

    def _begin(self) -> None:
        self.message = DIMSEMessage()
        self._growing_bytes = self._taken_bytes = self._fragments = 0
        self._began_s = monotonic_s()

    def _objection(self, data: bytes) -> Reason | None:
        """Why this fragment ends the association."""
        self._fragments += 1
        self._growing_bytes += len(data) - 1
        if self._fragments > self._limits.message_fragments or self.msg_queue.qsize() >= self._limits.messages_waiting:
            return Reason.PROTOCOL
        if self._too_slow():
            return Reason.TOO_SLOW
        return Reason.PROTOCOL if data[0] & COMMAND and not self._is_command(data) else None

    def _too_slow(self) -> bool:
        lasted_s = monotonic_s() - self._began_s
        return lasted_s > self._limits.slow_grace_s and self._growing_bytes < lasted_s * self._limits.slow_bytes_per_s

    def _is_command(self, data: bytes) -> bool:
        """Whether what there is of the command set may be one: small, and, once complete, flat and for us."""
        encoded = self.message.encoded_command_set
        if self.message.command_set or encoded.tell() + len(data) - 1 > self._limits.command_set_bytes:
            return False
        if not data[0] & LAST:
            return True
        try:
            field = command_field(encoded.getvalue() + data[1:], self._limits.command_elements)
        except Malformed:
            return False
        return field != N_EVENT_REPORT_RQ  # each would get a thread

    def _end(self, reason: Reason) -> None:
        self._ended = True
        self._refused(reason)
        self.dul.event_queue.put(INVALID_PDU)

    def _make_room(self, context_id: int, data: bytes) -> None:
        """Takes a data set's fragment from the budget, or forgets the data set."""
        if data[0] & COMMAND or isinstance(self.message.data_set, Forgotten):
            return
        size_bytes = len(data) - 1
        if self._growing_bytes > self._largest_bytes:
            self._forget(Reason.TOO_LARGE)
        elif not self._budget.take(size_bytes):
            self._forget(Reason.BUFFER_FULL)
        else:
            self._taken_bytes += size_bytes
            with self._lock:
                self._held_bytes += size_bytes
            self._lead(context_id)

    def _forget(self, reason: Reason) -> None:
        self.message.data_set = Forgotten(reason)
        self.give(self._taken_bytes)

    def _lead(self, context_id: int) -> None:
        """A store's data set begins behind preamble and File Meta (PS3.10 7.1)."""
        if isinstance(self.message, C_STORE_RQ) and not self.message.data_set.tell():
            context = self.assoc._accepted_cx.get(context_id)  # noqa: SLF001 - its public list is by no ID
            if context is None:
                return
            leading = _leading(self.message.command_set, context.transfer_syntax[0])
            if leading is None:
                self._forget(Reason.UNPARSABLE)
            else:
                self.message.data_set = leading


def _leading(command: Any, transfer_syntax: UID) -> Part10 | None:
    try:
        meta = create_file_meta(
            sop_class_uid=command.AffectedSOPClassUID,
            sop_instance_uid=command.AffectedSOPInstanceUID,
            transfer_syntax=transfer_syntax,
        )
        leading = Part10()
        leading.lead_bytes = leading.write(CLEAN + PREFIX + encode_file_meta(meta))
    except Exception:  # noqa: BLE001 - whatever stands in a command set of theirs: the object is refused with a status
        return None
    return leading
