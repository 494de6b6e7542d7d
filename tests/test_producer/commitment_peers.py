"""Requestors of storage commitment: pynetdicom as SCU on one association, or called back on its own SCP."""

import queue
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

TITLE = "SCANNER"
PATIENCE_S = 120.0  # no test measures speed

Pair = tuple[str, str]  # SOP class, SOP instance


@dataclass(frozen=True)
class Report:
    """One N-EVENT-REPORT as the requestor got it."""

    event_type: int
    transaction_uid: str
    committed: tuple[Pair, ...]
    failed: tuple[tuple[str, str, int], ...]
    same_association: bool


class Peer(Association):
    """A requestor's association that neither hangs nor loses a response while it is told a report.

    pynetdicom serves an N-EVENT-REPORT in a thread of its own, which says at its end that the reactor runs, while the
    reactor waits for whoever asked it to pause: a release, or the next message, then waits for that pause for ever.
    Only the reactor, which is the association's own thread, knows.
    """

    _paused = False

    @property
    def _is_paused(self) -> bool:
        return self._paused

    @_is_paused.setter
    def _is_paused(self, paused: bool) -> None:
        if self._kill or threading.current_thread() is self:
            self._paused = paused


@dataclass
class Requestor:
    """Asks, and keeps the reports that come. ``answers``: statuses of its first responses; then Success."""

    answers: list[int] = field(default_factory=list)
    reports: "queue.Queue[Report]" = field(default_factory=queue.Queue)
    asked_on: list[Any] = field(default_factory=list)
    roles: list[tuple[bool, bool]] = field(default_factory=list)

    def told(self, event: Any) -> tuple[int, None]:
        """EVT_N_EVENT_REPORT."""
        status = self.answers.pop(0) if self.answers else 0
        self.reports.put(_report(event, same=event.assoc in self.asked_on))
        return status, None

    @contextmanager
    def association(self, address: tuple[str, int], *contexts: Pair, bind: str = "127.0.0.1") -> Iterator[Any]:
        """With storage commitment and those contexts, from that address; released at the end."""
        entity = AE(ae_title=TITLE)
        entity.network_timeout, entity.dimse_timeout = None, PATIENCE_S
        entity.add_requested_context(StorageCommitmentPushModel)
        for sop_class, syntax in contexts:
            entity.add_requested_context(sop_class, syntax)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.told)]
        peer = entity.associate(*address, evt_handlers=handlers, bind_address=(bind, 0))
        assert peer.is_established
        peer.__class__ = Peer
        self.asked_on.append(peer)
        try:
            yield peer
        finally:
            if peer.is_established:
                peer.release()

    @contextmanager
    def listening(self, port: int = 0) -> Iterator[str]:
        """Its own SCP; yields host:port. It accepts the reporter as SCP only where that asked for the role."""
        entity = AE(ae_title=TITLE)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [(evt.EVT_N_EVENT_REPORT, self.told), (evt.EVT_ACCEPTED, self._accepted)]
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        try:
            yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        finally:
            server.shutdown()

    def report(self, within_s: float = PATIENCE_S) -> Report:
        """The next report."""
        return self.reports.get(timeout=within_s)

    def _accepted(self, event: Any) -> None:
        proposed = event.assoc.requestor.role_selection.values()
        self.roles.extend((bool(role.scu_role), bool(role.scp_role)) for role in proposed)


def _report(event: Any, *, same: bool) -> Report:
    data = event.event_information
    committed = [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in data.get("ReferencedSOPSequence", ())]
    failed = [
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID, i.FailureReason)
        for i in data.get("FailedSOPSequence", ())
    ]
    return Report(event.event_type, data.TransactionUID, tuple(committed), tuple(failed), same)


def action(pairs: Sequence[Pair], transaction: str) -> Dataset:
    """Action Information."""
    data = Dataset()
    data.TransactionUID = transaction
    data.ReferencedSOPSequence = [_item(pair) for pair in pairs]
    return data


def _item(pair: Pair) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = pair
    return item


def ask(
    peer: Any,
    pairs: Sequence[Pair] | Dataset | None,
    transaction: str = "",
    action_type: int = 1,
    instance: str = StorageCommitmentPushModelInstance,
) -> tuple[str, int]:
    """N-ACTION: its TransactionUID and the status."""
    transaction = transaction or str(generate_uid())
    data = pairs if pairs is None or isinstance(pairs, Dataset) else action(pairs, transaction)
    status, _ = peer.send_n_action(data, action_type, StorageCommitmentPushModel, instance)
    return transaction, int(status.Status)


def closed_port() -> int:
    """A port nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
