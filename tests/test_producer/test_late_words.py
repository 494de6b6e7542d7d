"""Peers that break an association while our answer is on its way: no thread dies, the place is free."""

import socket
import threading
import time
from queue import Queue
from typing import Any

import pytest

from producer.late_words_in import OURS, PatientStateMachine
from tests.test_producer.conftest import Start
from tests.test_producer.hostile import pdu
from tests.test_producer.running import wait_until
from tests.test_producer.test_hostile_dicom import refused

CONTEXT = b"\x20\0\0\x2e\x01\0\0\0\x30\0\0\x11" + b"1.2.840.10008.1.1" + b"\x40\0\0\x11" + b"1.2.840.10008.1.2"
USER = b"\x50\0\0\x08\x51\0\0\x04\0\0\x40\0"
BODY = b"\0\x01\0\0" + b"TRIAGE".ljust(16) + b"BREAKS".ljust(16) + bytes(32)
BODY += b"\x10\0\0\x15" + b"1.2.840.10008.3.1.1.1" + CONTEXT + USER
ASSOCIATE = b"\x01\0" + len(BODY).to_bytes(4, "big") + BODY  # PS3.8 9.3.2: one context, Verification
GARBAGE = b"\xee\0\0\0\0\0"  # no PDU of that type (PS3.8 9.3.1)


class Network:
    """What a state machine asks of the network thread it belongs to."""

    def __init__(self) -> None:
        self.to_provider_queue: Queue[Any] = Queue()
        self.killed = False

    def kill_dul(self) -> None:
        """Ends the thread."""
        self.killed = True


@pytest.mark.parametrize("event", sorted(OURS))
def test_a_word_too_late_is_dropped_while_the_connection_closes(event: str) -> None:
    """In Sta13 nobody hears us any more: the word goes, the thread stays to see the connection's end."""
    network = Network()
    network.to_provider_queue.put("word")
    machine = PatientStateMachine(network)
    machine.current_state = "Sta13"
    machine.do_action(event)
    assert (network.to_provider_queue.empty(), network.killed, machine.current_state) == (True, False, "Sta13")


@pytest.mark.parametrize("event", ["Evt7", "Evt18", "Evt10"])
def test_after_the_connections_end_the_thread_ends_too(event: str) -> None:
    """In Sta1 there is nothing left to wait for, whatever comes."""
    network = Network()
    machine = PatientStateMachine(network)
    machine.current_state = "Sta1"
    machine.do_action(event)
    assert network.killed


def test_a_peer_that_breaks_the_association_before_our_answer_costs_no_thread(
    start: Start, tansu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Request and nonsense in one breath, many times: no thread dies of it, and every place is free again."""
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    with start(tansu) as producer:
        before = threading.active_count()
        for _ in range(40):
            with socket.create_connection(producer.dicom, timeout=5) as peer:
                peer.sendall(ASSOCIATE + GARBAGE)
                peer.settimeout(10)
                while peer.recv(4096):
                    pass
        wait_until(lambda: threading.active_count() <= before + 2, 20)
    time.sleep(0.1)
    assert died == []


WRONG = {
    **{f"even ID {number}": CONTEXT[:4] + bytes([number]) + CONTEXT[5:] for number in (0, 2, 254)},
    "no abstract syntax": CONTEXT[:3] + b"\x19" + CONTEXT[4:8] + CONTEXT[29:],
    "no transfer syntax": CONTEXT[:3] + b"\x19" + CONTEXT[4:29],
    "no syntax": CONTEXT[:3] + b"\x04" + CONTEXT[4:8],
}


@pytest.mark.parametrize("context", WRONG.values(), ids=WRONG)
def test_a_request_that_breaks_the_library_ends_its_connection_at_once(
    start: Start, tansu: str, monkeypatch: pytest.MonkeyPatch, context: bytes
) -> None:
    """A presentation context that PS3.8 9.3.2.2 does not know: no thread dies, no place is kept, it is counted."""
    died: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    wrong = pdu(0x01, ASSOCIATE[6:].replace(CONTEXT, context))
    with start(tansu) as producer:
        before = threading.active_count()
        for _ in range(5):
            with socket.create_connection(producer.dicom, timeout=5) as peer:
                peer.sendall(wrong)
                peer.settimeout(5)
                while peer.recv(4096):
                    pass
        wait_until(lambda: threading.active_count() <= before + 2, 20)
        assert refused(producer, "protocol") == 5
    assert died == []
