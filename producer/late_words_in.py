"""A state machine that outlives words of ours that come too late, and words of the peer that break the library.

The peer broke the association, or left, while our answer was on its way to the network thread: PS3.8 table 9-10 knows
no transition for that pair, and pynetdicom's network thread dies of it. Here the word is dropped, as nobody hears it.

An exception out of the library (a presentation context with an even ID, or without an abstract syntax: PS3.8 9.3.2.2)
would end the network thread, or the association's own with a word on standard error. Here the connection is ended.
"""

from contextlib import suppress
from queue import Empty

from pynetdicom.association import Association
from pynetdicom.fsm import TRANSITION_TABLE, StateMachine

from contracts.reasons import Reason

# Requests and responses of our own side (PS3.8 9.2.2); all other events come from the network or a timer.
OURS = frozenset({"Evt1", "Evt7", "Evt8", "Evt9", "Evt11", "Evt14", "Evt15"})
IDLE = "Sta1"


class PatientStateMachine(StateMachine):
    """Takes the place of an association's own machine: same state, same tables."""

    def do_action(self, event: str) -> None:
        """As the library's; a word too late is dropped, another impossible event ends the network thread."""
        if (event, self.current_state) in TRANSITION_TABLE:
            self._known(event)
            return
        if event in OURS:
            with suppress(Empty):
                self.dul.to_provider_queue.get(block=False)
        if event not in OURS or self.current_state == IDLE:
            self.dul.kill_dul()

    def _known(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception:  # noqa: BLE001 (the library takes PDUs apart in there, and has stopped its thread by now)
            self.dul.socket.end(Reason.PROTOCOL)
            self.dul.to_user_queue.put(None)  # whoever waits for the peer's request hears that none will come


class PatientAssociation(Association):
    """Takes the place of an association's own class before its thread begins."""

    def run(self) -> None:
        """As the library's; what breaks it ends the connection."""
        try:
            super().run()
        except Exception:  # noqa: BLE001 (the library negotiates in there; handlers of ours have their own guard)
            self.dul.socket.end(Reason.PROTOCOL)
            self.kill()
